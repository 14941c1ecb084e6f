package native

import (
	"strconv"
	"strings"
)

// legacyArgs turns the words after the operation into the pairs that plugins of protocol 1 take (host-abi.md
// section 13): --key=v and --key v give key=v, a flag without a value key=true, -abc three flags, other words
// arg0, arg1 and so on. Whether the word after a flag is its value cannot be known, so it always is, as it was
// in the original: --cleanup ./dist gives cleanup=./dist.
func legacyArgs(words []string) []string {
	var out []string
	positional := 0
	position := func(word string) {
		if strings.TrimSpace(word) != "" {
			out = append(out, "arg"+strconv.Itoa(positional)+"="+word)
			positional++
		}
	}
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" {
			for _, rest := range words[i+1:] {
				position(rest)
			}
			break
		}
		if !isFlag(word) {
			position(word)
			continue
		}
		key, value, has := strings.Cut(strings.TrimLeft(word, "-"), "=")
		key = strings.ToLower(key)
		switch {
		case has:
		case i+1 < len(words) && words[i+1] != "--" && !isFlag(words[i+1]) && takesValue(word):
			i++
			value = words[i]
		case takesValue(word):
			value = "true"
		default: // -abc
			for _, c := range key {
				out = append(out, string(c)+"=true")
			}
			continue
		}
		if key != "" {
			out = append(out, key+"="+value)
		}
	}
	return out
}

// isFlag: "-" alone and negative numbers are values.
func isFlag(word string) bool {
	if len(word) < 2 || word[0] != '-' {
		return false
	}
	_, err := strconv.ParseFloat(word, 64)
	return err != nil
}

// takesValue says that the next word can be the value of a flag: not of several short ones in one word.
func takesValue(word string) bool {
	return strings.HasPrefix(word, "--") || len([]rune(word)) == 2
}
