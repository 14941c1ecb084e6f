package schema

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// A pattern of a stranger must cost little memory to compile and little time to match: its text and its compiled
// size are bounded, and Validate counts size times length of the string as work.
const (
	maxPattern  = 1 << 10 // bytes of one text
	maxPatterns = 1 << 16 // instructions and character ranges of all patterns of a schema
)

type pattern struct {
	*regexp.Regexp
	text string
	size int
}

func newPattern(text string) (*pattern, int, error) {
	if len(text) > maxPattern {
		return nil, 0, fmt.Errorf("a pattern has at most %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	program, ranges := sizes(tree)
	if program > maxPatterns || ranges > maxPatterns {
		return nil, 0, fmt.Errorf("pattern %.60q is too large", text)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, 0, err
	}
	return &pattern{re, text, program}, program + ranges, nil
}

// sizes estimates the instructions of a compiled pattern, in which repetitions are written out, and counts the
// character ranges, which repetitions share.
func sizes(re *syntax.Regexp) (program, ranges int) {
	program = 1
	if re.Op == syntax.OpLiteral {
		program += len(re.Rune)
	} else {
		ranges = len(re.Rune) / 2
	}
	for _, sub := range re.Sub {
		p, r := sizes(sub)
		program, ranges = program+p, ranges+r
	}
	if re.Op == syntax.OpRepeat {
		program *= max(re.Min, re.Max, 1)
	}
	return program, ranges
}
