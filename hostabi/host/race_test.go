//go:build race

package host_test

// raceEnabled: the detector allocates too.
const raceEnabled = true
