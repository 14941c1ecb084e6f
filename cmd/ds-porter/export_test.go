package main

// What the external tests use.
var (
	App               = app
	ParseManifestFile = parseManifestFile
)

// Version is the version of the program.
const Version = version
