package hostabi

import "strings"

// reservedTopics are the first tokens that belong to the host (host-abi.md section 11).
var reservedTopics = map[string]bool{"ds": true, "plugin": true, "state": true, "artifact": true, "cache": true, "capability": true}

// CheckTopic checks a topic: token(.token)*, token [a-z0-9_-]{1,32}, at most MaxTopic bytes. The error has
// reason BAD_TOPIC.
func CheckTopic(topic string) error { return checkTopic(topic, false) }

// CheckPattern checks a subscription pattern: a topic in which * stands for one token and a final ** for one
// or more. The error has reason BAD_TOPIC.
func CheckPattern(pattern string) error { return checkTopic(pattern, true) }

// ReservedTopic reports whether topic belongs to the host.
func ReservedTopic(topic string) bool {
	first, _, _ := strings.Cut(topic, ".")
	return reservedTopics[first]
}

// MatchTopic reports whether a valid pattern matches a valid topic.
func MatchTopic(pattern, topic string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, ".")
		t, trest, tmore := strings.Cut(topic, ".")
		if p == "**" && !pmore {
			return t != ""
		}
		if p != "*" && p != t {
			return false
		}
		if !pmore || !tmore {
			return pmore == tmore
		}
		pattern, topic = prest, trest
	}
}

func checkTopic(s string, pattern bool) error {
	if s == "" || len(s) > MaxTopic {
		return Errorf(ReasonBadTopic, "topic %q is empty or longer than %d bytes", clip(s, 80), MaxTopic)
	}
	for rest, more := s, true; more; {
		var token string
		token, rest, more = strings.Cut(rest, ".")
		if pattern && (token == "*" || token == "**" && !more) {
			continue
		}
		if token == "" || len(token) > 32 || strings.IndexFunc(token, notInTopic) >= 0 {
			return Errorf(ReasonBadTopic, "topic %q has the token %q, want 1-32 of a-z 0-9 _ -", clip(s, 80), clip(token, 40))
		}
	}
	return nil
}

func notInTopic(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
}

// CheckStateKey checks a state key: [A-Za-z0-9][A-Za-z0-9._/=-]{0,255}. The error has reason BAD_KEY.
func CheckStateKey(key string) error {
	const first = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if key == "" || len(key) > MaxStateKey || strings.IndexByte(first, key[0]) < 0 || strings.Trim(key, first+"._/=-") != "" {
		return Errorf(ReasonBadKey, "state key %q is not [A-Za-z0-9][A-Za-z0-9._/=-]{0,255}", clip(key, 80))
	}
	return nil
}
