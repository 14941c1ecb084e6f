package trust_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
	"github.com/delivery-station/ds/internal/trust"
)

// pinSteps are what the scenario does, and the highest versions of a and b then.
var pinSteps = []struct {
	do   func(all map[string]*trust.Pin)
	have string
}{
	{nil, "1.0.0 1.0.0"},
	{func(all map[string]*trust.Pin) { all["a"].Highest = "2.0.0" }, "2.0.0 1.0.0"},
	{func(all map[string]*trust.Pin) { delete(all, "b") }, "2.0.0 none"},
}

func pinScenario() faulttest.Scenario {
	path := func(dir string) string { return filepath.Join(dir, "trust", "pins.json") }
	return faulttest.Scenario{
		Name: "pins",
		Setup: func(t *testing.T, f atomicfile.FS, dir string) {
			k := newKey(t).Key
			pin := func() *trust.Pin {
				return &trust.Pin{Key: k.ID(), SPKI: k.DER(), How: trust.HowFlag, Highest: "1.0.0", FirstSeen: time.Unix(1, 0)}
			}
			err := trust.PinsOn(f, path(dir)).Edit(t.Context(), func(all map[string]*trust.Pin) error {
				all["a"], all["b"] = pin(), pin()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		Run: func(ctx context.Context, f atomicfile.FS, dir string, ack func(string)) error {
			p := trust.PinsOn(f, path(dir))
			for i, st := range pinSteps[1:] {
				if err := p.Edit(ctx, func(all map[string]*trust.Pin) error { st.do(all); return nil }); err != nil {
					return err
				}
				ack(fmt.Sprint(i + 1))
			}
			return nil
		},
		Check: func(t *testing.T, r faulttest.Result) {
			if r.Err != nil && hostabi.ReasonOf(r.Err) == "" {
				t.Errorf("an error without a reason: %v", r.Err)
			}
			p := trust.PinsOn(r.FS, path(r.Dir))
			all, err := p.All()
			if err != nil {
				t.Fatal(err)
			}
			highest := func(repository string) string {
				if pin := all[repository]; pin != nil {
					return pin.Highest
				}
				return "none"
			}
			done, have := len(r.Acked), highest("a")+" "+highest("b")
			if have != pinSteps[done].have && (done+1 == len(pinSteps) || have != pinSteps[done+1].have) {
				t.Errorf("after %q the pins are %s", r.Acked, have)
			}
			if err := p.Edit(t.Context(), func(all map[string]*trust.Pin) error { all["a"].Highest = "3.0.0"; return nil }); err != nil {
				t.Error(err) // the next command works
			}
			names, err := os.ReadDir(filepath.Join(r.Dir, "trust"))
			if err != nil || len(names) != 1 {
				t.Errorf("left behind: %v, %v", names, err)
			}
		},
	}
}

// R2 of reliability.md: each operation of the file system fails, or the process dies there.
func TestR2_Pins(t *testing.T) { faulttest.Loop(t, pinScenario()) }

// R3 of reliability.md: the power is cut.
func TestR3_Pins(t *testing.T) { faulttest.Cuts(t, pinScenario(), faulttest.Scale(4, 40, 400)) }
