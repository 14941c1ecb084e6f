package hostabi

import (
	"strings"
	"testing"
)

func TestMatchTopic(t *testing.T) {
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"a.b", "a.b", true},
		{"a.b", "a.b.c", false},
		{"a.b.c", "a.b", false},
		{"a", "b", false},
		{"a.*", "a.b", true},
		{"a.*", "a", false},
		{"a.*", "a.b.c", false},
		{"*.b", "a.b", true},
		{"a.**", "a.b", true},
		{"a.**", "a.b.c", true},
		{"a.**", "a", false},
		{"**", "a", true},
		{"**", "a.b.c", true},
	} {
		if got := MatchTopic(c.pattern, c.topic); got != c.want {
			t.Errorf("MatchTopic(%q, %q) = %v", c.pattern, c.topic, got)
		}
	}
}

func TestCheckTopic(t *testing.T) {
	long := strings.Repeat("a", 33)
	for topic, ok := range map[string]bool{
		"a": true, "a.b-c_9": true, "": false, ".": false, "a.": false, ".a": false, "A": false, "a b": false, "a.*": false,
		long: false, strings.Repeat("aaaaaaa.", 16) + "a": false, "ä": false,
	} {
		if err := CheckTopic(topic); (err == nil) != ok {
			t.Errorf("CheckTopic(%q) = %v", topic, err)
		} else if err != nil && ReasonOf(err) != ReasonBadTopic {
			t.Errorf("CheckTopic(%q) has reason %s", topic, ReasonOf(err))
		}
	}
	for pattern, ok := range map[string]bool{"a.*": true, "**": true, "a.**": true, "**.a": false, "a*": false, "*.*": true} {
		if err := CheckPattern(pattern); (err == nil) != ok {
			t.Errorf("CheckPattern(%q) = %v", pattern, err)
		}
	}
}

func TestCheckStateKey(t *testing.T) {
	for key, ok := range map[string]bool{
		"a": true, "upload/9f=2-c.x_": true, "": false, "/a": false, "a b": false, strings.Repeat("k", 256): true, strings.Repeat("k", 257): false,
	} {
		if err := CheckStateKey(key); (err == nil) != ok {
			t.Errorf("CheckStateKey(%q) = %v", clip(key, 20), err)
		}
	}
}

func TestReservedTopic(t *testing.T) {
	if !ReservedTopic("artifact.pulled") || !ReservedTopic("ds") || ReservedTopic("porter.artifact") {
		t.Error("the first token alone decides")
	}
}
