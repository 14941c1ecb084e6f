package plugin

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/delivery-station/ds/hostabi"
)

// tagged is a tag that is a version.
type tagged struct {
	tag string
	v   *semver.Version
}

// PickVersion chooses the tag that constraint asks for (registry.md section 8): the highest version that
// matches; pre-releases count only if the constraint names one; "1.2" means ~1.2; none or "latest" means the
// highest release, and the tag latest only where no tag is a version. Tags are strict semantic versions with
// an optional v, "_" read as "+". The error is USAGE for a bad constraint, REF_NOT_FOUND when nothing matches,
// or the first error of tags.
func PickVersion(tags iter.Seq2[string, error], constraint string) (string, error) {
	constraint = strings.TrimSpace(constraint)
	highest := constraint == "" || constraint == "latest"
	want, err := parseConstraint(constraint)
	if err != nil && !highest {
		return "", hostabi.Errorf(hostabi.ReasonUsage, "version %q is not a version or constraint such as 1.4.0, 1.2 or ^1.2", clip(constraint, 80))
	}
	var all []tagged
	latest := false
	for tag, err := range tags {
		if err != nil {
			return "", err
		}
		latest = latest || tag == "latest"
		if v, ok := tagVersion(tag); ok {
			all = append(all, tagged{tag, v})
		}
	}
	slices.SortFunc(all, func(a, b tagged) int {
		return cmp.Or(b.v.Compare(a.v), cmp.Compare(len(a.tag), len(b.tag)), cmp.Compare(a.tag, b.tag))
	})
	for _, t := range all {
		if highest && t.v.Prerelease() == "" || !highest && want.Check(t.v) {
			return t.tag, nil
		}
	}
	if highest && latest && len(all) == 0 {
		return "latest", nil
	}
	return "", notFound(constraint, all)
}

func tagVersion(tag string) (*semver.Version, bool) {
	if len(tag) > 128 {
		return nil, false
	}
	v, err := semver.StrictNewVersion(strings.ReplaceAll(strings.TrimPrefix(tag, "v"), "_", "+"))
	return v, err == nil
}

// VersionOf is the version that a tag names, empty if it names none.
func VersionOf(tag string) string {
	v, ok := tagVersion(tag)
	if !ok {
		return ""
	}
	return v.String()
}

// parseConstraint reads c; a version without its patch number gets a tilde, because "1.2" alone would be
// equal to 1.2.0 only in some readers' eyes.
func parseConstraint(c string) (*semver.Constraints, error) {
	if len(c) > 256 {
		return nil, semver.ErrInvalidSemVer
	}
	if c != "" && strings.Trim(c, "v0123456789.") == "" && strings.Count(c, ".") < 2 {
		c = "~" + c
	}
	return semver.NewConstraint(c)
}

// notFound names the five versions around what was asked for; all is sorted, highest first.
func notFound(constraint string, all []tagged) error {
	if len(all) == 0 {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "no tag is a version")
	}
	at := 0
	number := strings.TrimLeft(constraint, "=<>!~^ v")
	if i := strings.IndexAny(number, " ,|"); i >= 0 {
		number = number[:i]
	}
	if v, err := semver.NewVersion(number); err == nil {
		at, _ = slices.BinarySearchFunc(all, v, func(t tagged, v *semver.Version) int { return v.Compare(t.v) })
	}
	first := max(0, min(at-2, len(all)-5))
	var near []string
	for _, t := range all[first:min(first+5, len(all))] {
		near = append(near, t.tag)
	}
	if constraint == "" || constraint == "latest" {
		return hostabi.Errorf(hostabi.ReasonRefNotFound, "no version is a release; there are %s", strings.Join(near, ", "))
	}
	return hostabi.Errorf(hostabi.ReasonRefNotFound, "no version matches %s; nearest are %s", clip(constraint, 80), strings.Join(near, ", "))
}

// CompareVersions orders two plugin versions by semantic versioning, -1, 0 or 1; build metadata does not count. Text
// that is no version comes before every version, and is ordered as text.
func CompareVersions(a, b string) int {
	va, erra := semver.NewVersion(a)
	vb, errb := semver.NewVersion(b)
	switch {
	case erra == nil && errb == nil:
		return va.Compare(vb)
	case erra == nil:
		return 1
	case errb == nil:
		return -1
	}
	return strings.Compare(a, b)
}
