package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// host is a host or a pattern of hosts. Exactly one of ip, and name with depth, is meaningful.
type host struct {
	ip    netip.Addr
	name  string // a name, or the suffix of a wildcard
	depth segKind
}

const anyPort = -1

// origin is one scheme, host and port, or a pattern of them.
type origin struct {
	private bool // private: addresses are allowed
	scheme  string
	host    host
	port    int
}

func (a host) covers(b host) bool {
	if a.ip.IsValid() || b.ip.IsValid() {
		return a.ip == b.ip // no wildcard matches an address
	}
	if a.depth == literal {
		return b.depth == literal && a.name == b.name
	}
	sub, ok := strings.CutSuffix(b.name, a.name)
	switch {
	case !ok:
		return false
	case a.depth == one && b.depth == one, a.depth == deep && b.depth != literal:
		return sub == "" || a.depth == deep && strings.HasSuffix(sub, ".")
	case b.depth != literal || len(sub) < 2 || sub[len(sub)-1] != '.':
		return false
	}
	return a.depth == deep || strings.Count(sub, ".") == 1
}

func (a origin) covers(b origin) bool {
	return (a.private || !b.private) && a.scheme == b.scheme && (a.port == anyPort || a.port == b.port) && a.host.covers(b.host)
}

func (a origin) String() string {
	s := a.scheme + "://" + a.host.String()
	switch {
	case a.port == anyPort:
		s += ":*"
	case a.port != defaultPort(a.scheme):
		s += ":" + strconv.Itoa(a.port)
	}
	if a.private {
		return "private:" + s
	}
	return s
}

func (a host) String() string {
	switch {
	case a.ip.Is6():
		return "[" + a.ip.String() + "]"
	case a.ip.IsValid():
		return a.ip.String()
	case a.depth == one:
		return "*." + a.name
	case a.depth == deep:
		return "**." + a.name
	}
	return a.name
}

func defaultPort(scheme string) int {
	if scheme == "http" {
		return 80
	}
	return 443
}

// parseOrigin reads scheme://host[:port|:*] without path, the form of scopes.
func parseOrigin(s string) (origin, error) {
	var o origin
	s, o.private = strings.CutPrefix(s, "private:")
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return o, errors.New("want http:// or https://")
	}
	o.scheme = scheme
	if strings.ContainsAny(rest, "/?#@\\%") {
		return o, errors.New("an origin has no path, query, user or escapes")
	}
	name, port := splitPort(rest)
	switch {
	case port == "" && !strings.HasSuffix(rest, ":"):
		o.port = defaultPort(scheme)
	case port == "*":
		o.port = anyPort
	default:
		n, err := parsePort(port)
		if err != nil {
			return o, err
		}
		o.port = n
	}
	var err error
	o.host, err = parseHost(name)
	return o, err
}

// splitPort cuts the port from the last colon outside brackets.
func splitPort(s string) (name, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.LastIndexByte(s, ']') > i {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func parsePort(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 || s[0] == '0' || s[0] == '+' {
		return 0, fmt.Errorf("port %q is not 1 to 65535", clip(s))
	}
	return n, nil
}

// parseHost reads a host of a scope: lower-case ASCII name, *.suffix, **.suffix, or an address.
func parseHost(s string) (host, error) {
	h := host{}
	if rest, ok := strings.CutPrefix(s, "**."); ok {
		h.depth, s = deep, rest
	} else if rest, ok := strings.CutPrefix(s, "*."); ok {
		h.depth, s = one, rest
	}
	if ip, err := parseAddr(s); err == nil {
		if h.depth != literal {
			return h, errors.New("no wildcard before an address")
		}
		return host{ip: ip}, nil
	}
	if err := checkName(s); err != nil {
		return h, err
	}
	if h.depth != literal && strings.Count(s, ".") < 1 {
		return h, errors.New("a wildcard needs a suffix of two labels, such as *.example.com")
	}
	h.name = s
	return h, nil
}

func parseAddr(s string) (netip.Addr, error) {
	in, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		var ok bool
		if in, ok = strings.CutSuffix(in, "]"); !ok {
			return netip.Addr{}, errors.New("bracket is not closed")
		}
	}
	ip, err := netip.ParseAddr(in)
	if err != nil || ip.Zone() != "" || ip.Is6() != bracketed {
		return netip.Addr{}, errors.New("not an address")
	}
	return ip.Unmap(), nil
}

// checkName accepts lower-case ASCII host names. A last label of digits or 0x… would be read as an address by
// some resolvers, so it is refused.
func checkName(s string) error {
	if s == "" || len(s) > 253 {
		return errors.New("host is empty or longer than 253 bytes")
	}
	var last string
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("host %q is not a lower-case ASCII name", clip(s))
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return fmt.Errorf("host %q looks like a number", clip(s))
	}
	return nil
}

// canonicalURL parses a URL once: scheme and host in lower case, host as A-labels, no trailing dot. Users,
// hosts with escapes, and numbers that some resolvers read as addresses are refused.
func canonicalURL(s string) (*url.URL, origin, error) {
	if len(s) > 8<<10 || strings.ContainsAny(s, "\\") || strings.ContainsFunc(s, func(r rune) bool { return r <= 0x20 || r == 0x7f }) {
		return nil, origin{}, errors.New("too long, or has spaces, backslashes or control characters")
	}
	authority := s
	if _, rest, ok := strings.Cut(s, "://"); ok {
		authority = rest
	}
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority = authority[:i]
	}
	if strings.Contains(authority, "%") {
		return nil, origin{}, errors.New("escapes in the host")
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, origin{}, errors.New("it does not parse")
	}
	o := origin{scheme: strings.ToLower(u.Scheme)}
	if o.scheme != "http" && o.scheme != "https" {
		return nil, o, errors.New("want http:// or https://")
	}
	if u.User != nil || u.Opaque != "" {
		return nil, o, errors.New("it has a user")
	}
	name, port := splitPort(u.Host)
	if o.port = defaultPort(o.scheme); port != "" {
		if o.port, err = parsePort(port); err != nil {
			return nil, o, err
		}
	}
	if ip, err := parseAddr(name); err == nil {
		o.host.ip = ip
	} else {
		name, err = idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
		if err != nil {
			return nil, o, errors.New("the host is not a name")
		}
		name = strings.ToLower(name)
		if err := checkName(name); err != nil {
			return nil, o, err
		}
		o.host.name = name
	}
	return u, o, nil
}
