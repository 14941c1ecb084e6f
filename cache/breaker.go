package cache

import (
	"context"
	"encoding/json"
	"time"

	"github.com/delivery-station/ds/internal/atomicfile"
)

const (
	breakAfter = 3 // failures in a row, over all processes
	firstBreak = 30 * time.Second
	lastBreak  = 10 * time.Minute
	maxBreaker = 64 << 10 // bytes of the file
)

// breaker is .ds/remote.json: what all processes know of the remote tier. The zero value is a tier in order.
type breaker struct {
	Name     string    `json:"name"`
	Failures int       `json:"failures"`
	Pause    int64     `json:"pause_seconds,omitempty"` // the last one
	Until    time.Time `json:"until,omitzero"`          // nobody asks before
}

// failed is b after one more failure.
func (b breaker) failed(now time.Time) breaker {
	if b.Failures++; b.Failures < breakAfter {
		return b
	}
	return b.opened(now)
}

// opened is b after something that must not happen again soon.
func (b breaker) opened(now time.Time) breaker {
	pause := min(max(2*time.Duration(b.Pause)*time.Second, firstBreak), lastBreak)
	b.Failures, b.Pause, b.Until = max(b.Failures, breakAfter), int64(pause/time.Second), now.Add(pause).UTC()
	return b
}

// open reports whether nobody may ask now. A time that no pause explains is a clock that was wrong.
func (b breaker) open(now time.Time) bool {
	return now.Before(b.Until) && b.Until.Sub(now) <= lastBreak
}

func (t *remote) breakerFile() string { return t.s.internal("remote.json") }

// read is what the file says of this tier; of another one it says nothing.
func (t *remote) read(file []byte) (b breaker) {
	if json.Unmarshal(file, &b) != nil || b.Name != t.Upstream.Name() || b.Failures < 0 || b.Pause < 0 || b.Pause > int64(lastBreak/time.Second) {
		return breaker{}
	}
	return b
}

// start asks the breaker, once; t.mu is held. After a pause one process probes, the others stay away.
func (t *remote) start() {
	if t.started {
		return
	}
	t.started = true
	file, err := atomicfile.ReadFile(t.s.fs, t.breakerFile(), maxBreaker)
	if err != nil {
		return
	}
	t.breaker = t.read(file)
	switch {
	case t.breaker.open(t.s.now()):
		t.off = true
	case t.breaker.Failures >= breakAfter:
		t.probe, err = t.s.fs.Lock(doneCtx(), t.s.internal("remote.lock"))
		t.off = err != nil
	}
	if t.off {
		t.s.count("remote", "result", "off", 1)
		t.log.Info("remote cache failed before and is left alone", "until", t.breaker.Until)
	}
}

// settle changes the file by what happened here, on top of what others met meanwhile; t.mu is held. What cannot
// be written is known to this process only.
func (t *remote) settle(change func(breaker, time.Time) breaker) {
	now := t.s.now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := t.s.inDir(t.s.internal(""), func() error {
		return atomicfile.Edit(ctx, t.s.fs, t.breakerFile(), func(old []byte) ([]byte, error) {
			b := t.read(old)
			if b.open(now) {
				return nil, nil // others were faster
			}
			b = change(b, now)
			b.Name = t.Upstream.Name()
			text, err := json.Marshal(b)
			return append(text, '\n'), err
		})
	})
	if err != nil {
		t.log.Debug("state of the remote cache cannot be written", "error", err)
	}
	t.ended()
}

// healed forgets failures; t.mu is held.
func (t *remote) healed() {
	if t.breaker.Failures > 0 {
		_ = t.s.fs.Remove(t.breakerFile()) // else the next success does
		t.breaker = breaker{}
	}
	t.ended()
}

// ended lets another process probe; t.mu is held.
func (t *remote) ended() {
	if t.probe == nil {
		return
	}
	_ = t.s.fs.Remove(t.s.internal("remote.lock"))
	_ = t.probe() // the lock ends with the process
	t.probe = nil
}
