package hostabi

import (
	"strconv"
	"time"
)

// Bounds of the state of one owner (events-state.md section 6), the same for every engine.
const (
	StateQuota      = 1 << 20  // bytes when no quota was granted
	MaxStateQuota   = 16 << 20 // bytes whatever was granted
	MaxStateEntries = 10_000
	MaxStateTTL     = 10 * 365 * 24 * time.Hour
	stateEntryCost  = 64 // bytes counted for an entry beside key and value
)

// CheckStateEntry checks what a writer sets: the owner, the key and the size of the value.
func CheckStateEntry(owner PluginName, e *StateEntry) error {
	if !owner.Valid() {
		return Errorf(ReasonUsage, "%q is no plugin name", clip(string(owner), 40))
	}
	if err := CheckStateKey(e.Key); err != nil {
		return err
	}
	if len(e.Value) > MaxStateValue {
		return Errorf(ReasonTooLarge, "state value of %s has %d bytes, at most %d", e.Key, len(e.Value), MaxStateValue)
	}
	return nil
}

// StateCost is what an entry takes of its owner's quota.
func StateCost(key string, value []byte) int64 { return int64(len(key) + len(value) + stateEntryCost) }

// CheckStateQuota compares what owner would hold with quota; 0 = StateQuota. The error has reason QUOTA.
func CheckStateQuota(owner PluginName, total int64, entries int, quota int64) error {
	if quota <= 0 {
		quota = StateQuota
	}
	quota = min(quota, MaxStateQuota)
	if total > quota || entries > MaxStateEntries {
		return Errorf(ReasonQuota, "state of %s would hold %d bytes in %d entries, at most %d bytes and %d entries", owner, total, entries, quota, MaxStateEntries)
	}
	return nil
}

// StateExpiry is when an entry written now ends: what was asked for, else after ttl, never beyond ten years. Zero
// = never.
func StateExpiry(asked, now time.Time, ttl time.Duration) time.Time {
	if asked.IsZero() && ttl > 0 {
		asked = now.Add(ttl)
	}
	if end := now.Add(MaxStateTTL); asked.After(end) {
		return end
	}
	return asked
}

// StateMissing is the error of a read of a key that is absent or expired.
func StateMissing(owner PluginName, key string) *Error {
	return Errorf(ReasonKeyNotFound, "%s has no state key %s", owner, key)
}

// StateConflict is the error of a write that expected revision want of a key whose revision is have; 0 = absent.
func StateConflict(owner PluginName, key string, have, want uint64) *Error {
	return Errorf(ReasonStateConflict, "state key %s of %s has revision %d, not %d", key, owner, have, want).
		WithMeta("revision", strconv.FormatUint(have, 10))
}
