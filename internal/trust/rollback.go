package trust

import (
	"context"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

// versions keeps a tag, a mirror or a plugin index from going back, and raises the mark in the pin.
func (e *evaluation) versions(v *Verdict) error {
	if e.Pin != nil {
		if err := CheckVersion(e.Input, e.Pin.Highest, e.Pin.HighestDigest); err != nil {
			return err
		}
	}
	if v.Pin == nil || e.Pin != nil && plugin.CompareVersions(e.Version, e.Pin.Highest) < 0 {
		return nil
	}
	v.Pin.Highest, v.Pin.HighestDigest = e.Version, e.Index
	return nil
}

// CheckVersion compares the version in question with one that was seen: DOWNGRADE if it is lower and
// VERSION_MOVED if it is the same with another digest, unless the user said that this is meant.
func CheckVersion(in Input, seen string, digest hostabi.Digest) error {
	if seen == "" {
		return nil
	}
	switch c := plugin.CompareVersions(in.Version, seen); {
	case c < 0 && !in.AllowDowngrade:
		return hostabi.Errorf(hostabi.ReasonDowngrade, "%s %s is older than %s seen before", in.Name, in.Version, seen).
			WithFix("ds plugin install %s --allow-downgrade", in.Ref).WithMeta("flag", "--allow-downgrade")
	case in.Version == seen && in.Index != digest && !in.Force:
		return hostabi.Errorf(hostabi.ReasonVersionMoved, "%s %s was %s, is now %s", in.Name, in.Version, digest, in.Index).
			WithFix("ds plugin install %s --force", in.Ref).WithMeta("flag", "--force")
	}
	return nil
}

// Record writes the pin of a verdict, whose question the user has answered with yes. If the pin of the
// repository changed since, the verdict is made again, so that the first of two installations decides.
func (p *Pins) Record(ctx context.Context, in Input, v Verdict) error {
	if v.Pin == nil {
		return nil
	}
	if v.Ask {
		in.TrustKey, in.TrustHow = v.Key, HowPrompt
	}
	return p.Edit(ctx, func(all map[string]*Pin) error {
		in.Pin = all[in.Repository]
		again, err := Evaluate(in)
		if err != nil {
			return err
		}
		if again.Pin != nil {
			all[in.Repository] = again.Pin
		}
		return nil
	})
}
