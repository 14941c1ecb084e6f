// Package sigstore holds no code: its test shows that sigstore-go verifies what ds signs, and ds what sigstore-go
// signs. It is a module of its own, so that nothing of sigstore is near ds.
package sigstore
