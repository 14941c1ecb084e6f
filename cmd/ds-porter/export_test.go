package main

import "context"

// What the external tests use.
var (
	App               = app
	ParseManifestFile = parseManifestFile
)

// Version is the version of the program.
const Version = version

// VerifyBundle is what bundle verify finds wrong with a file.
func VerifyBundle(ctx context.Context, file string) ([]string, error) {
	b, err := readBundle(file, file)
	if err != nil {
		return nil, err
	}
	defer b.close()
	err = b.verify(ctx)
	return b.Problems, err
}
