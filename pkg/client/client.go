// Package client is the SDK for plugins in Go: one source builds as the native ds-NAME and, with
// GOOS=wasip1, as NAME.wasm. It calls the host of the run it is part of and links neither grpc nor
// protobuf-go nor net. Start with Main, or with NewClient in a program that parses its own arguments.
package client
