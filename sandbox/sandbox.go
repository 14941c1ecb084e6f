// Package sandbox turns what a plugin requested, what the user granted and the admin's ceiling into the Box
// of one run. Box.Check is the one function that decides; nothing here enforces anything itself.
package sandbox

// Box is the effective set of capabilities of one run.
type Box struct{}
