package main

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// yamlLine is one "key: value" or "- key: value".
type yamlLine struct {
	number, indent, dash int // columns of the key and of the dash, which is -1 if there is none
	key, value           string
	bare                 bool // nothing after the colon
}

// parseYAML reads the part of YAML that manifest files need: maps and one list in block style, one scalar a
// line, quoted or not, and comments. Whatever it accepts means the same to a full YAML parser.
func (m *manifestFile) parseYAML(text string) error {
	if !utf8.ValidString(text) {
		return at(0, "the file is no UTF-8")
	}
	section, first := "", (*yamlLine)(nil)
	seen := make(map[string]bool)
	for i, line := range strings.Split(text, "\n") {
		l, err := splitLine(i+1, strings.TrimSuffix(line, "\r"))
		switch {
		case err != nil:
			return err
		case l == nil:
			continue
		case l.indent == 0:
			section, first, err = l.key, nil, m.top(l)
			if seen[l.key] {
				err = at(l.number, "%s is there twice", l.key)
			}
			seen[l.key] = true
		case l.bare:
			err = at(l.number, "%s needs a value on its line", l.key)
		default:
			if first == nil {
				first = l
			}
			if l.indent != first.indent || l.dash >= 0 && l.dash != first.dash {
				return at(l.number, "%q does not stand below its neighbours", l.key)
			}
			err = m.member(section, l)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// top takes a key of the whole file.
func (m *manifestFile) top(l *yamlLine) error {
	switch {
	case l.key != "artifact-type" && l.key != "annotations" && l.key != "manifests":
		return at(l.number, "unknown key %q; there are artifact-type, annotations and manifests", l.key)
	case l.key == "artifact-type" && l.bare:
		return at(l.number, "artifact-type needs a value on its line")
	case l.key != "artifact-type" && !l.bare:
		return at(l.number, "the entries of %s go on lines of their own", l.key)
	}
	m.ArtifactType += l.value
	return nil
}

// member takes a key inside annotations or manifests.
func (m *manifestFile) member(section string, l *yamlLine) error {
	switch {
	case section == "annotations" && l.dash < 0:
		if _, twice := m.Annotations[l.key]; twice {
			return at(l.number, "%s is there twice", l.key)
		}
		if m.Annotations == nil {
			m.Annotations = make(map[string]string)
		}
		m.Annotations[l.key] = l.value
		return nil
	case section != "manifests" || l.dash < 0 && len(m.Manifests) == 0:
		return at(l.number, "%q is out of place: annotations is a map, manifests a list", l.key)
	case l.dash >= 0:
		m.Manifests = append(m.Manifests, manifestEntry{line: l.number})
	}
	e := &m.Manifests[len(m.Manifests)-1]
	field, ok := map[string]*string{"platform": &e.Platform, "path": &e.Path, "mediaType": &e.MediaType}[l.key]
	if !ok {
		return at(l.number, "unknown key %q; an entry has platform, path and mediaType", l.key)
	}
	if *field != "" || l.value == "" {
		return at(l.number, "%s is empty or there twice", l.key)
	}
	*field = l.value
	return nil
}

// splitLine reads one line, nil if it is empty or a comment.
func splitLine(number int, text string) (*yamlLine, error) {
	if strings.ContainsFunc(text, notYAML) {
		return nil, at(number, "tabs and control characters cannot be used")
	}
	text = strings.TrimRight(text, " ")
	rest := strings.TrimLeft(text, " ")
	if rest == "" || rest[0] == '#' || text == "---" && number == 1 {
		return nil, nil
	}
	l := &yamlLine{number: number, dash: -1}
	if after, ok := strings.CutPrefix(rest, "- "); ok {
		l.dash, rest = len(text)-len(rest), strings.TrimLeft(after, " ")
	}
	l.indent = len(text) - len(rest)
	key, rest, err := scalar(number, rest, true)
	if err != nil {
		return nil, err
	}
	after, ok := strings.CutPrefix(strings.TrimLeft(rest, " "), ":")
	value := strings.TrimLeft(after, " ")
	if !ok || key == "" || after != "" && value == after {
		return nil, at(number, "not of the form key: value")
	}
	l.key = key
	if l.bare = value == "" || value[0] == '#'; l.bare {
		return l, nil
	}
	if l.value, rest, err = scalar(number, value, false); err != nil {
		return nil, err
	}
	if comment := strings.TrimLeft(rest, " "); comment != "" && (comment[0] != '#' || comment == rest) {
		return nil, at(number, "text after the value of %s", key)
	}
	return l, nil
}

// notYAML reports what YAML forbids, takes for the end of a line, or strips.
func notYAML(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r&0xfffe == 0xfffe
}

// scalar cuts a quoted or plain scalar off the front of s. What YAML may read as something else is refused.
func scalar(number int, s string, key bool) (value, rest string, err error) {
	switch {
	case s == "" || strings.IndexByte("&*!|>{}[]%@`?,#-=<:", s[0]) >= 0:
		return "", "", at(number, "%q has a meaning of its own in YAML; use quotes", s)
	case s[0] == '"':
		end := 1
		for ; end < len(s) && s[end] != '"'; end++ {
			if s[end] == '\\' {
				end++
			}
		}
		if end >= len(s) || strings.Contains(strings.ToLower(s[:end]), `\ud`) || json.Unmarshal([]byte(s[:end+1]), &value) != nil {
			return "", "", at(number, "bad string in double quotes")
		}
		return value, s[end+1:], nil
	case s[0] == '\'':
		for end := 1; end < len(s); end++ {
			if s[end] == '\'' && !strings.HasPrefix(s[end+1:], "'") {
				return strings.ReplaceAll(s[1:end], "''", "'"), s[end+1:], nil
			} else if s[end] == '\'' {
				end++
			}
		}
		return "", "", at(number, "bad string in single quotes")
	}
	value, _, _ = strings.Cut(s, " #")
	if i := strings.Index(value+" ", ": "); i >= 0 && key {
		value = value[:i]
	} else if i >= 0 {
		return "", "", at(number, "%q holds a colon; use quotes", value)
	}
	if value = strings.TrimRight(value, " "); value == "~" || strings.EqualFold(value, "null") {
		return "", "", at(number, "%s is no string; use quotes", value)
	}
	return value, s[len(value):], nil
}
