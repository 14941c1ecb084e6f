package registry

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

const (
	layoutScheme  = "oci-layout:"
	remoteScheme  = "oci://"
	dockerHub     = "docker.io"
	dockerHubAPI  = "registry-1.docker.io"
	defaultTag    = "latest"
	maxReference  = 4096
	maxRepository = 255
	maxTag        = 128
)

// ErrShortName says that a reference names no host. The Client joins such names to its default registry.
var ErrShortName = errors.New("reference has no registry host")

// Reference says where content is: a repository of a remote registry, or an OCI layout. The zero value is
// invalid. Values come from ParseReference or Client.Parse and are canonical: equal places are equal values.
type Reference struct {
	Host       string // "ghcr.io", "localhost:5000", "[::1]:5000"; empty for a layout
	Repository string
	Path       string // absolute and clean, of a layout: a directory or a tar
	Tag        string
	Digest     hostabi.Digest // decides when there is a Tag too
}

// IsLayout reports whether r names an OCI layout.
func (r Reference) IsLayout() bool { return r.Path != "" }

// Name is the identity of the repository, without tag and digest: "host/repository" or
// "oci-layout:/absolute/path".
func (r Reference) Name() string {
	if r.IsLayout() {
		return layoutScheme + r.Path
	}
	return r.Host + "/" + r.Repository
}

// String is the canonical text; parsing it gives r again.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// orLatest is r with the tag that neither tag nor digest means.
func (r Reference) orLatest() Reference {
	if r.Tag == "" && r.Digest == "" {
		r.Tag = defaultTag
	}
	return r
}

// apiHost is the host that serves the API of r.
func (r Reference) apiHost() string {
	if r.Host == dockerHub {
		return dockerHubAPI
	}
	return r.Host
}

// ParseReference parses a reference with a host or an OCI layout (registry.md section 1). Layout paths are
// made absolute; one that starts with ~ needs a Client. A short name is an error that wraps ErrShortName.
// Errors have reason REF.
func ParseReference(s string) (Reference, error) { return parser{}.parse(s) }

// parser holds what the meaning of a reference depends on.
type parser struct {
	def       string // registry that short names are joined to; empty = none
	home, dir string
}

func (p parser) parse(s string) (Reference, error) {
	if len(s) > maxReference {
		return Reference{}, badRef(s, "longer than %d bytes", maxReference)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return Reference{}, badRef(s, "has a control character")
	}
	if rest, ok := strings.CutPrefix(s, layoutScheme); ok {
		return p.parseLayout(s, rest)
	}
	rest, ok := strings.CutPrefix(s, remoteScheme)
	if !ok {
		if scheme, _, found := strings.Cut(s, "://"); found {
			return Reference{}, badRef(s, "has the scheme %q, want oci:// or none", clip(scheme, 20))
		}
	}
	first, path, slash := strings.Cut(rest, "/")
	if strings.Contains(first, "@") && !strings.Contains(first, "@sha256:") {
		return Reference{}, badRef(s, "has user information")
	}
	if !slash || !hostLike(first) {
		return p.parseShort(s, rest)
	}
	return parseRemote(s, first, path)
}

// hostLike reports whether the first element of a reference is meant as a host.
func hostLike(first string) bool { return first == "localhost" || strings.ContainsAny(first, ".:") }

func parseRemote(s, host, path string) (Reference, error) {
	var r Reference
	path, err := r.cut(s, path)
	if err != nil {
		return Reference{}, err
	}
	if r.Host = canonicalHost(host); r.Host == "" {
		return Reference{}, badRef(s, "has a bad host")
	}
	if r.Host == dockerHub && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	if len(path) > maxRepository || !validRepository(path) {
		return Reference{}, badRef(s, "has a bad repository: want lower-case letters, digits and separators")
	}
	r.Repository = path
	return r, nil
}

// parseShort joins a name without a host to the default registry.
func (p parser) parseShort(s, rest string) (Reference, error) {
	var r Reference
	name, err := r.cut(s, rest)
	if err != nil {
		return Reference{}, err
	}
	if !validRepository(name) {
		return Reference{}, badRef(s, "has a bad repository: want lower-case letters, digits and separators")
	}
	if p.def == "" {
		e := badRef(s, "has no registry host")
		e.Err = ErrShortName
		return Reference{}, e
	}
	if dir, ok := strings.CutPrefix(p.def, layoutScheme); ok {
		if r.Path, err = p.absolute(s, dir+"/"+name); err != nil {
			return Reference{}, err
		}
		return r, nil
	}
	return parser{}.parse(strings.TrimSuffix(strings.TrimPrefix(p.def, remoteScheme), "/") + "/" + strings.TrimPrefix(rest, "/"))
}

// cut takes tag and digest off the end of s, which is part of whole, and returns what is left.
func (r *Reference) cut(whole, s string) (string, error) {
	s, digest, ok := strings.Cut(s, "@")
	if ok {
		if r.Digest = hostabi.Digest(digest); !r.Digest.Valid() {
			return "", badRef(whole, "has a bad digest: want sha256: and 64 lower-case hex digits")
		}
	}
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, '/') {
		if s, r.Tag = s[:i], s[i+1:]; !ValidTag(r.Tag) {
			return "", badRef(whole, "has a bad tag")
		}
	}
	return s, nil
}

func (p parser) parseLayout(s, rest string) (Reference, error) {
	var r Reference
	if i := strings.LastIndex(rest, "@sha256:"); i >= 0 {
		r.Digest = hostabi.Digest(rest[i+1:])
		if rest = rest[:i]; !r.Digest.Valid() {
			return Reference{}, badRef(s, "has a bad digest: want sha256: and 64 lower-case hex digits")
		}
	}
	if rest == "" || rest[0] == ':' {
		return Reference{}, badRef(s, "has no path")
	}
	path, err := p.absolute(s, rest)
	if err != nil {
		return Reference{}, err
	}
	if r.Path = path; exists(path) {
		return r, nil
	}
	// The last colon starts a tag, unless it is that of a Windows drive or of a directory's name.
	i := strings.LastIndexByte(path, ':')
	if i <= 1 || strings.ContainsAny(path[i:], `/\`) {
		return r, nil
	}
	if r.Tag = path[i+1:]; !ValidTag(r.Tag) {
		return Reference{}, badRef(s, "has a bad tag")
	}
	r.Path = filepath.Clean(path[:i])
	return r, nil
}

func (p parser) absolute(s, path string) (string, error) {
	if path == "~" || strings.HasPrefix(path, "~/") {
		if p.home == "" {
			return "", badRef(s, "starts with ~ and there is no home directory")
		}
		path = p.home + path[1:]
	}
	if !filepath.IsAbs(path) && p.dir != "" {
		path = filepath.Join(p.dir, path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		e := badRef(s, "has a relative path")
		e.Err = err
		return "", e
	}
	return abs, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// canonicalHost is the one spelling of host[:port], or "" if it is none. Port 443 is left out.
func canonicalHost(s string) string {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return ""
		}
		a, err := netip.ParseAddr(s[1:end])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return ""
		}
		host, port = "["+a.String()+"]", s[end+1:]
	} else {
		if i := strings.IndexByte(s, ':'); i >= 0 {
			host, port = s[:i], s[i:]
		}
		if host = strings.ToLower(host); !validHost(host) {
			return ""
		}
	}
	if host == "index.docker.io" || host == dockerHubAPI {
		host = dockerHub
	}
	if port == "" {
		return host
	}
	n, err := strconv.ParseUint(port[1:], 10, 16)
	if port[0] != ':' || err != nil || n == 0 || strconv.FormatUint(n, 10) != port[1:] {
		return ""
	}
	if n == 443 && strings.Contains(host, ".") && !loopback(host) {
		return host
	}
	return host + port
}

func validHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// loopback reports whether a host, with or without port, is this machine by its name.
func loopback(host string) bool {
	host = hostname(host)
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// hostname is host without port and brackets.
func hostname(host string) string {
	if strings.HasPrefix(host, "[") {
		h, _, _ := strings.Cut(host[1:], "]")
		return h
	}
	h, _, _ := strings.Cut(host, ":")
	return h
}

// validRepository checks name elements separated by "/": [a-z0-9]+ joined by ".", "_", "__" or dashes
// (OCI distribution-spec 1.1, pulling manifests).
func validRepository(s string) bool {
	for elem := range strings.SplitSeq(s, "/") {
		sep := byte('/') // what came before, as if the element began after a separator
		for i := range len(elem) {
			c := elem[i]
			switch {
			case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
				sep = 0
			case sep == 0 && (c == '.' || c == '_' || c == '-'):
				sep = c
			case sep == '-' && c == '-':
			case sep == '_' && c == '_' && elem[i-2] != '_':
			default:
				return false
			}
		}
		if sep != 0 {
			return false
		}
	}
	return true
}

// ValidTag reports whether s has the form of a tag: [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}.
func ValidTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	return strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

// badRef never shows what stands before an @ that is no digest: it may be a password.
func badRef(s, format string, a ...any) *hostabi.Error {
	if i := strings.LastIndexByte(s, '@'); i >= 0 && !strings.HasPrefix(s[i:], "@sha256:") {
		s = "…" + s[i:]
	}
	e := hostabi.Errorf(hostabi.ReasonRef, format, a...)
	e.Msg = "reference " + strconv.Quote(clip(s, 200)) + " " + e.Msg
	return e
}

// clip is s cut to at most n bytes, with "…" where something was cut.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
