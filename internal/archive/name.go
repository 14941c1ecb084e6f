package archive

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// checkName says which rule a slash-separated name breaks on any operating system, or nothing.
func checkName(name string, l Limits) string {
	switch {
	case name == "":
		return "name is empty"
	case len(name) > l.Path:
		return "name is too long"
	case !utf8.ValidString(name):
		return "name is not UTF-8"
	case name[0] == '/':
		return "name is absolute"
	case strings.ContainsAny(name, `\:`):
		return `name has \ or :`
	case strings.ContainsFunc(name, unicode.IsControl):
		return "name has a control character"
	}
	depth := 0
	for e := range strings.SplitSeq(name, "/") {
		if depth++; depth > l.Depth {
			return "name has too many elements"
		}
		switch {
		case e == "" || e == "." || e == "..":
			return "name has an empty, . or .. element"
		case len(e) > l.Element:
			return "name has an element that is too long"
		case strings.HasSuffix(e, ".") || strings.HasSuffix(e, " "):
			return "name has an element that ends in a dot or space"
		case isDevice(e):
			return "name is a device name on Windows"
		}
	}
	return ""
}

// isDevice knows the names that Windows takes for devices in any directory, with any extension.
func isDevice(element string) bool {
	base, _, _ := strings.Cut(element, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	digit, ok := strings.CutPrefix(base, "COM")
	if !ok {
		digit, ok = strings.CutPrefix(base, "LPT")
	}
	return ok && utf8.RuneCountInString(digit) == 1 && strings.ContainsAny(digit, "0123456789¹²³")
}

// fold maps names that some file system takes for one to the same string.
func fold(name string) string {
	return norm.NFC.String(strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, norm.NFC.String(name)))
}
