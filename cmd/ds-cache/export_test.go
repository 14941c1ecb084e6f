package main

// App is what the external tests use.
var App = app
