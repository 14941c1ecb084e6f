package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
	"github.com/delivery-station/ds/plugin/install"
)

// verifier makes internal/trust the judge of installations: the administrator's ceiling first, then trust.yaml and
// the pins.
type verifier struct{ a *app }

// Verify implements install.Verifier.
func (v verifier) Verify(_ context.Context, e install.Evidence) (install.Verdict, error) {
	grants, err := v.a.parts.grants()
	if err != nil {
		return install.Verdict{}, err
	}
	ceiling, err := grants.Policy()
	if err == nil {
		err = ceiling.AllowSource(e.Repository)
	}
	if err != nil {
		return install.Verdict{}, err
	}
	in, err := v.input(e)
	if err != nil {
		return install.Verdict{}, err
	}
	t, err := trust.Evaluate(in)
	signer := signerOf(t.Key)
	switch e := hostabi.AsError(err); {
	case err == nil, e.Reason == hostabi.ReasonUnsigned: // no flag helps against the ceiling: do not offer one
		if refused := ceiling.AllowSigner(signer); refused != nil {
			err = refused
		}
	case e.Reason == hostabi.ReasonSignerUntrusted && e.Meta["key"] != "":
		if refused := ceiling.AllowSigner(e.Meta["key"]); refused != nil {
			err = refused
		}
	}
	if err == nil && t.Ask && !v.a.term.Facts().Prompts {
		err = t.Untrusted(e.Ref)
	}
	if err != nil {
		return install.Verdict{}, err
	}
	return install.Verdict{
		Level: t.Level, Signer: signer, Rule: t.Rule, Bundle: t.Bundle, SignedAt: t.SignedAt, Accepted: t.AllowUnsigned, New: t.Ask,
		RotatedFrom: string(t.RotatedFrom),
		Record: func(ctx context.Context) error {
			if err := v.a.parts.pins().Record(ctx, in, t); err != nil || t.RotatedFrom == "" {
				return err
			}
			fmt.Fprintf(v.a.stderr(), "note: the signer of %s changed from %s to %s, as the former signed\n", e.Repository, t.RotatedFrom, t.Key)
			return grants.Succeed(ctx, e.Repository, string(t.RotatedFrom), string(t.Key))
		},
	}, nil
}

func (v verifier) input(e install.Evidence) (trust.Input, error) {
	in := trust.Input{
		Ref: e.Ref, Repository: e.Repository, Index: e.Index, Name: e.Name, Version: e.Version, Bundles: e.Bundles, Now: time.Now(),
		TrustKey: trust.KeyID(e.TrustKey), TrustHow: e.TrustHow, AllowUnsigned: e.Accepted,
		AllowDowngrade: e.Downgrade || e.Active, Force: e.Force || e.Active,
	}
	var err error
	if in.Policy, err = trust.LoadPolicy(v.a.paths.Config); err != nil {
		return in, err
	}
	if v.a.cfg.String("plugins.signature.mode") == "strict" { // of the original DS: what no rule matches has to be signed
		in.Policy.Default = trust.RequireSignature
	}
	if in.Legacy, err = v.a.layerKey(e.Layer); err != nil {
		return in, err
	}
	in.Pin, err = v.a.parts.pins().Get(e.Repository)
	return in, err
}

// signerOf is a key id as grants, receipts and the ceiling name it.
func signerOf(id trust.KeyID) string {
	if id == "" {
		return "none"
	}
	return string(id)
}

func (p *parts) newPins() *trust.Pins {
	return trust.OpenPins(filepath.Join(p.a.paths.Data, "trust", "pins.json"))
}
