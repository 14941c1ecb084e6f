package cache

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/atomicfile"
)

func TestStampVector(t *testing.T) {
	// Other programs check stamps: this value never changes.
	got := stampOf("boot", hostabi.DigestOf([]byte("x")), atomicfile.ID{Ino: 1, Size: 2, Mtime: 3, Ctime: 4})
	if want := "cf60b906446e1619c2a3d65e2bf98c170d9b0004238d01818c6a9de9215ed9de"; got != want {
		t.Errorf("stamp %s, want %s", got, want)
	}
}

func TestRecordVector(t *testing.T) {
	r := record{kind: recordPut, view: 0x0102, size: 1, disk: 2, time: 3, expires: 4}
	for i := range r.digest {
		r.digest[i] = byte(i)
	}
	b := r.encode()
	want := "DSL1\x01\x00\x02\x01"
	for i := range 32 {
		want += string(rune(i))
	}
	for i := range 4 {
		want += string(rune(i+1)) + strings.Repeat("\x00", 7)
	}
	want += "\x00\x00\x00\x00"
	if string(b[:76]) != want || len(b) != 80 {
		t.Errorf("record %q", b)
	}
}

func TestReadRecords(t *testing.T) {
	a := record{kind: recordPut, digest: sum{1}, size: 5, disk: 8192, time: 7, expires: 9}
	b := record{kind: recordLease, digest: sum{2}, view: 3, time: 8}
	A, B := a.encode(), b.encode()
	bad := slices.Clone(A)
	bad[50] ^= 1
	for name, c := range map[string]struct {
		in   []byte
		want []record
		done int64 // all but what may be the start of a record
	}{
		"two":               {slices.Concat(A, B), []record{a, b}, 160},
		"cut":               {slices.Concat(A, B[:79]), []record{a}, 80},
		"damaged first":     {slices.Concat(bad, B), []record{b}, 160},
		"garbage between":   {slices.Concat(A, []byte("DSLDSL1x"), B), []record{a, b}, 168},
		"torn then whole":   {slices.Concat(A[:33], A, B), []record{a, b}, 193},
		"magic in a record": {slices.Concat([]byte("DSL1"), A), []record{a}, 84},
		"only garbage":      {bytes.Repeat([]byte("x"), 100), nil, 97},
		"nothing":           {nil, nil, 0},
		"start of a magic":  {slices.Concat(A, []byte("DS")), []record{a}, 80},
	} {
		var got []record
		done := readRecords(c.in, func(r *record) { got = append(got, *r) })
		if !reflect.DeepEqual(got, c.want) || done != c.done {
			t.Errorf("%s: %d of %d bytes, %+v", name, done, len(c.in), got)
		}
	}
}

func TestSnapshotRoundTripAndDamage(t *testing.T) {
	x := &index{time: 5, reconcile: 4, bytes: 3}
	for i := range 100 {
		e := entryInfo{digest: sum{byte(i)}, disk: int64(i), used: int64(-i), expires: int64(i * i)}
		x.entries = append(x.entries, e)
		x.disk += e.disk
	}
	var b bytes.Buffer
	if err := x.encode(&b); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	if len(good) != 64+100*56+4 || string(good[:4]) != "DSS1" {
		t.Errorf("%d bytes, %q", len(good), good[:8])
	}
	got, err := decodeSnapshot(bytes.NewReader(good), int64(len(good)))
	if err != nil || !reflect.DeepEqual(got, x) {
		t.Errorf("%+v, %v", got, err)
	}
	for at := 0; at < len(good); at += 7 {
		bad := slices.Clone(good)
		bad[at] ^= 0x10
		if _, err := decodeSnapshot(bytes.NewReader(bad), int64(len(bad))); err == nil {
			t.Errorf("byte %d flipped and taken", at)
		}
		if _, err := decodeSnapshot(bytes.NewReader(good[:at]), int64(at)); err == nil {
			t.Errorf("cut at %d and taken", at)
		}
	}
}

func TestLatestRecordWins(t *testing.T) {
	d := sum{1}
	put := func(at int64) *record { return &record{kind: recordPut, digest: d, size: 10, disk: 100, time: at} }
	del := func(at int64) *record { return &record{kind: recordDelete, digest: d, size: 10, time: at} }
	for name, c := range map[string]struct {
		had  bool
		recs []*record
		want bool
	}{
		"put":                 {false, []*record{put(5)}, true},
		"delete":              {true, []*record{del(5)}, false},
		"delete, put":         {true, []*record{put(6), del(5)}, true},
		"put, delete":         {false, []*record{del(6), put(5)}, false},
		"tie is delete":       {true, []*record{del(5), put(5)}, false},
		"tie, other way":      {true, []*record{put(5), del(5)}, false},
		"before the snapshot": {false, []*record{put(1)}, false},
	} {
		x := &index{time: 2}
		if c.had {
			x.entries, x.disk, x.bytes = []entryInfo{{digest: d, disk: 100}}, 100, 10
		}
		l := (&Store{}).newLogs(x.time)
		for i, r := range c.recs {
			l.take(string(rune('a'+i)), r)
		}
		l.merge(x)
		want := &index{time: 2}
		if c.want {
			want.disk, want.bytes = 100, 10
		}
		if (len(x.entries) == 1) != c.want || x.disk != want.disk || x.bytes != want.bytes {
			t.Errorf("%s: %+v", name, x)
		}
	}
}

func TestHeapOrder(t *testing.T) {
	entries := make([]entryInfo, 1000)
	for i := range entries {
		entries[i].used = int64(i * 7919 % 1000)
	}
	h := newHeap(entries)
	last := int64(-1)
	for n := 0; ; n++ {
		i, ok := h.pop()
		if !ok {
			if n != 1500 {
				t.Errorf("%d popped", n)
			}
			return
		}
		if entries[i].used < last {
			t.Fatalf("%d after %d", entries[i].used, last)
		}
		last = entries[i].used
		if n < 500 {
			entries[i].used += 2000
			h.push(i)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	m := &metadata{Digest: hostabi.DigestOf(nil), Size: 1, Expires: formatExpires(time.Unix(1e9, 0)), Sources: []string{"a/b"}}
	b, err := m.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(bytes.Replace(b, []byte(`"v":1`), []byte(`"v":2`), 1))
	f.Add(bytes.Replace(b, []byte("2001"), []byte("9999"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, herr := parseHead(b)
		m, h2, err := parseMeta(b)
		if err != nil {
			return
		}
		if herr == nil && !reflect.DeepEqual(h, h2) {
			t.Errorf("head %+v, whole %+v", h, h2)
		}
		m.Stamp, m.Expires = h2.stamp, formatExpires(h2.expires)
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		h3, err := parseHead(again)
		if err != nil || !h3.expires.Equal(h2.expires) {
			t.Errorf("%q written again is %q: %+v, %v", b, again, h3, err)
		}
	})
}

func FuzzLog(f *testing.F) {
	r := record{kind: recordPut, digest: sum{1}, size: 5}
	f.Add(r.encode(), 10)
	f.Add(append(r.encode()[:40], r.encode()...), 60)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var all []record
		done := readRecords(b, func(r *record) { all = append(all, *r) })
		if done < 0 || done > int64(len(b)) {
			t.Fatalf("done with %d of %d bytes", done, len(b))
		}
		// Reading in two parts, as gc does, gives the same.
		cut = min(max(cut, 0), len(b))
		var parts []record
		first := readRecords(b[:cut], func(r *record) { parts = append(parts, *r) })
		readRecords(b[first:], func(r *record) { parts = append(parts, *r) })
		if !reflect.DeepEqual(all, parts) {
			t.Errorf("whole %d records, in parts %d", len(all), len(parts))
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	for _, n := range []int{0, 3} {
		x := &index{entries: make([]entryInfo, n)}
		for i := range x.entries {
			x.entries[i].digest[0] = byte(i)
		}
		var b bytes.Buffer
		if err := x.encode(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeSnapshot(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := x.encode(&again); err != nil {
			t.Fatal(err)
		}
		if y, err := decodeSnapshot(&again, int64(again.Len())); err != nil || !reflect.DeepEqual(x, y) {
			t.Errorf("written again: %+v, %v", y, err)
		}
	})
}
