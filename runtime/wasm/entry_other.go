//go:build !unix

package wasm

// unsafeDir says why others could put native code into dir; here the profile directory of the user decides.
func unsafeDir(string) string { return "" }
