package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/delivery-station/ds/cache"
	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile/faulttest"
)

// hammered is the n-th of the blobs that all goroutines use.
func hammered(n int) []byte { return content(uint64(n), 50+n*97) }

const hammeredBlobs = 40

// TestHammer has many goroutines on four stores of one directory do everything at once. No call fails, no byte is wrong,
// and what is left is right. It is for the race detector.
func TestHammer(t *testing.T) {
	h := newStore(t, cache.Options{MaxSize: 200_000})
	stores := []*cache.Store{h.s, h.another(), h.another(), h.another()}
	seed := faulttest.Seed(t)
	var wg sync.WaitGroup
	var done atomic.Int64
	for g := range 12 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(g)))
			for range faulttest.Scale(60, 1000, 10_000) {
				if err := hammer(t.Context(), stores[random.IntN(len(stores))], random); err != nil {
					t.Errorf("goroutine %d: %v", g, err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	for v, err := range h.s.Verify(t.Context(), nil, false) {
		if err != nil || !v.OK {
			t.Errorf("verify: %+v, %v", v, err)
		}
	}
	for _, s := range stores[1:] {
		h.must(s.Close())
	}
	h.at(25 * time.Hour) // records of one digest by several stores have no common order: the daily look at the files has
	h.evict(hostabi.EvictOptions{ExpiredOnly: true})
	if n := h.staging(); n > 0 {
		t.Errorf("%d staged or thrown away files are left", n)
	}
	h.exact()
	if p, err := h.s.Check(t.Context(), false); err != nil || len(p) > 0 {
		t.Errorf("problems %v, %v", p, err)
	}
	t.Logf("%d operations", done.Load())
}

// hammer does one thing at random; what another goroutine evicts meanwhile is a miss and no error.
func hammer(ctx context.Context, s *cache.Store, random *rand.Rand) error {
	b := hammered(random.IntN(hammeredBlobs))
	d := hostabi.DigestOf(b)
	missing := func(err error) error {
		if hostabi.ReasonOf(err) == hostabi.ReasonNotCached {
			return nil
		}
		return err
	}
	switch random.IntN(12) {
	case 0, 1:
		_, err := fetch(ctx, s, b, 1000)
		return err
	case 2:
		return putOwned(ctx, s, b)
	case 3, 4, 5:
		return missing(readRight(ctx, s, b))
	case 6:
		return missing(s.Pin(ctx, d, "porter", time.Now().Add(time.Hour)))
	case 7:
		return s.Pin(ctx, d, "porter", time.Time{})
	case 8:
		if random.IntN(3) > 0 {
			return missing(s.Remove(ctx, "porter", d))
		}
		for _, err := range s.Evict(ctx, hostabi.EvictOptions{MaxBytes: 100_000}) {
			if err != nil {
				return err
			}
		}
		return nil
	case 9:
		_, err := s.Stat(ctx, d)
		return missing(err)
	case 10:
		name := fmt.Sprint("ghcr.io/a/b:", random.IntN(5))
		if err := s.SetRef(ctx, name, hostabi.Descriptor{Digest: d}); err != nil {
			return err
		}
		_, _, err := s.Ref(ctx, name)
		return err
	default:
		_, err := s.Usage(ctx)
		return err
	}
}

// readRight reads what Open gives, whoever evicts it meanwhile.
func readRight(ctx context.Context, s *cache.Store, want []byte) error {
	f, err := s.Open(ctx, hostabi.DigestOf(want))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	got, err := io.ReadAll(f)
	if err == nil && string(got) != string(want) {
		err = errors.New("other bytes came back")
	}
	return err
}
