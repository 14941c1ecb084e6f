//go:build race

package main

// slack multiplies the limits of the compile worker: the race detector shadows its memory and slows it down.
const slack = 16
