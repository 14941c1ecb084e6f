//go:build race

package native_test

// underRace: the race detector maps more memory than any limit allows, also in guests, which are this binary.
const underRace = true
