package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
)

// entriesOf lists the entries of a tar.
func entriesOf(t *testing.T, file string) (list []*tar.Header) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h)
	}
}

// alone fails if something but want lies in the directory of file.
func alone(t *testing.T, file string, want ...string) {
	t.Helper()
	found, err := os.ReadDir(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range found {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the directory holds %v, want %v", names, want)
	}
}

// TestTarBytes: a tar holds nothing that depends on where, when or how often it was written.
func TestTarBytes(t *testing.T) {
	t.Parallel()
	epoch := time.Unix(1_700_000_000, 0)
	c, _ := newClient(t, registry.Options{Epoch: epoch})
	local := newSink(t)
	first, second := local.artifact(t, noise(1, 100_000), noise(2, 10)), local.artifact(t, noise(3, 10))
	var contents [2][]byte
	for i := range contents {
		file := filepath.Join(t.TempDir(), "below", "x.tar")
		mustPush(t, c, "oci-layout:"+file+":v1", first, local)
		mustPush(t, c, "oci-layout:"+file+":v2", second, local)
		before, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		mustPush(t, c, "oci-layout:"+file+":v2", second, local)
		if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
			t.Errorf("a push of what is there wrote the tar again: %v", err)
		}
		if contents[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		alone(t, file, "x.tar")
		list := entriesOf(t, file)
		if list[0].Name != "oci-layout" || list[1].Name != "index.json" || len(list) != 2+6 {
			t.Errorf("%d entries: %v", len(list), list)
		}
		for j, h := range list {
			if !h.ModTime.Equal(epoch) || h.Mode != 0o644 || h.Uid != 0 || h.Typeflag != tar.TypeReg || (j > 2 && h.Name <= list[j-1].Name) {
				t.Errorf("entry %+v", h)
			}
		}
	}
	if !bytes.Equal(contents[0], contents[1]) {
		t.Error("the same content gave other bytes")
	}
}

// TestTarFails: what ends early leaves the old tar, or none, and nothing beside it.
func TestTarFails(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t, registry.Options{})
	local := newSink(t)
	good, bad := local.artifact(t, noise(1, 1000)), local.artifact(t, noise(2, 1000))
	if err := os.WriteFile(local.path(hostabi.DigestOf(noise(2, 1000))), noise(9, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.tar")
	ref := "oci-layout:" + file
	wantReason(t, c.Push(t.Context(), ref+":v1", bad, local.OpenFunc, nil), hostabi.ReasonDigestMismatch)
	alone(t, file)
	mustPush(t, c, ref+":v1", good, local)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wantReason(t, c.Push(t.Context(), ref+":v2", bad, local.OpenFunc, nil), hostabi.ReasonDigestMismatch)
	ctx, cancel := context.WithCancel(t.Context())
	wantReason(t, c.Push(ctx, ref+":v3", local.artifact(t, noise(3, 1000)), local.OpenFunc, func(hostabi.Progress) { cancel() }), hostabi.ReasonInterrupted)
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a failed push changed the tar: %v", err)
	}
	alone(t, file, "x.tar")
	broken := writeFile(t, "broken.tar", []byte("no tar at all, but somebody's file"))
	wantReason(t, c.Push(t.Context(), "oci-layout:"+broken+":v1", good, local.OpenFunc, nil), hostabi.ReasonBadLayout)
	if b, _ := os.ReadFile(broken); !bytes.HasPrefix(b, []byte("no tar")) {
		t.Error("somebody's file was replaced")
	}
}

// TestTarWriters: several writers of one tar lose nothing of each other.
func TestTarWriters(t *testing.T) {
	t.Parallel()
	local := newSink(t)
	ref := "oci-layout:" + filepath.Join(t.TempDir(), "x.tar")
	var roots [6]hostabi.Descriptor
	for i := range roots { // all before a writer reads what they share
		roots[i] = local.artifact(t, noise(uint64(i), 1000))
	}
	var wg sync.WaitGroup
	for i, root := range roots {
		c, _ := newClient(t, registry.Options{})
		wg.Go(func() {
			if err := c.Push(t.Context(), fmt.Sprintf("%s:v%d", ref, i), root, local.OpenFunc, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, _ := newClient(t, registry.Options{})
	if tags := collect(t, c.Tags(t.Context(), ref)); len(tags) != 6 {
		t.Errorf("tags %v", tags)
	}
	for i := range 6 {
		s := newSink(t)
		if _, err := c.Pull(t.Context(), fmt.Sprintf("%s:v%d", ref, i), hostabi.PullOptions{}, s, nil); err != nil {
			t.Error(err)
		}
	}
}
