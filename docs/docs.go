// Package docs embeds what ds prints as help: one page for each error number. It holds no logic but look-up.
package docs

import (
	"embed"
	"fmt"
	"strings"
)

//go:embed errors/*.md
var pages embed.FS

// Error is the page of an error number, "DS2004"; unknown numbers are an error.
func Error(number string) (string, error) {
	if strings.ContainsAny(number, "/\\.") {
		return "", fmt.Errorf("no page for %q", number)
	}
	b, err := pages.ReadFile("errors/" + number + ".md")
	if err != nil {
		return "", fmt.Errorf("no page for %q", number)
	}
	return string(b), nil
}
