package sandbox

import (
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// InWords says what scopes of c mean, for prompts: "its own settings", "files you name, ./dist". Texts of
// scopes come from strangers; the caller cleans the result before it reaches a terminal.
func InWords(c hostabi.Capability, scopes []string) string {
	out := make([]string, 0, len(scopes))
	for _, s := range scopes {
		out = append(out, inWords(c, s))
	}
	return strings.Join(out, ", ")
}

func inWords(c hostabi.Capability, scope string) string {
	switch scope {
	case "own":
		return map[hostabi.Capability]string{
			hostabi.ConfigRead: "its own settings", hostabi.SecretRead: "secrets in its own settings",
			hostabi.CacheRead: "what it put into the cache", hostabi.CacheWrite: "its own part of the cache",
			hostabi.EventsPublish: "its own topics", hostabi.StateRead: "its own state", hostabi.StateWrite: "its own state",
		}[c]
	case "args":
		switch c {
		case hostabi.FSRead, hostabi.FSWrite:
			return "files you name"
		case hostabi.NetHTTP:
			return "URLs you name"
		case hostabi.CacheRead:
			return "digests and references you name"
		}
		return "references you name"
	case "any":
		return "everything in the cache"
	case "**":
		if c == hostabi.RegistryPull || c == hostabi.RegistryPush {
			return "any registry"
		}
		return "everything"
	}
	switch c {
	case hostabi.FSRead, hostabi.FSWrite:
		return pathInWords(scope)
	case hostabi.NetHTTP:
		if rest, ok := strings.CutPrefix(scope, "private:"); ok {
			return rest + " (also private addresses)"
		}
	case hostabi.CacheRead:
		if rest, ok := strings.CutPrefix(scope, "artifact:"); ok {
			return "pulled from " + rest
		}
	}
	return scope
}

func pathInWords(scope string) string {
	where, glob, _ := strings.Cut(scope, ":")
	if glob == "**" && where == "cwd" {
		return "the whole working directory"
	}
	dir, all := strings.CutSuffix(glob, "/**")
	if all {
		glob = dir
	}
	switch where {
	case "cwd":
		return "./" + glob
	case "home":
		return "~/" + glob
	}
	return glob
}
