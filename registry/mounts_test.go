package registry_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/dstest"
	"github.com/delivery-station/ds/registry"
)

// TestMountsWhatIsKnown: a push takes blobs from repositories that were seen to hold them and that it may pull
// from; the memory outlives the client, and a wrong one costs a request.
func TestMountsWhatIsKnown(t *testing.T) {
	t.Parallel()
	big := noise(1, 100_000)
	srv, ref, root := pushed(t, dstest.RegistryOptions{Username: "u", Password: canary, Token: true}, big, noise(2, 100))
	dir := filepath.Join(t.TempDir(), "blobinfo")
	o := registry.Options{Credentials: []registry.Credential{{Registry: srv.Host, Username: "u", Password: canary}}, MountDir: dir}
	cache := newSink(t)
	c, _ := newClient(t, o)
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, cache, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, strings.ReplaceAll(srv.Host, ":", "_")+".log")
	want := string(hostabi.DigestOf(big)) + " team/app\n"
	if b, err := os.ReadFile(file); err != nil || string(b) != want {
		t.Fatalf("the memory is %q, %v", b, err)
	}
	if fi, err := os.Stat(file); err != nil || (fi.Mode().Perm() != 0o600 && runtime.GOOS != "windows") {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	all := func(string) bool { return true }
	for _, k := range []struct {
		name  string
		allow func(string) bool // nil = nobody said
		o     registry.Options
		log   string // "" = as it is
		want  string
	}{
		{name: "nobody allowed it", o: o, want: hostabi.ByNetwork},
		{name: "refused", o: o, allow: func(r string) bool { return r != srv.Host+"/team/app" }, want: hostabi.ByNetwork},
		{name: "another process", o: o, allow: all, want: hostabi.ByMount},
		{name: "damaged", o: o, allow: all, log: "nonsense\n" + want + "sha256:short x\n" + strings.TrimSuffix(want, "app\n"), want: hostabi.ByMount},
		{name: "wrong", o: o, allow: all, log: strings.Replace(want, "team/app", "team/gone", 1), want: hostabi.ByNetwork},
		{name: "no memory", o: registry.Options{Credentials: o.Credentials}, allow: all, want: hostabi.ByNetwork},
	} {
		t.Run(k.name, func(t *testing.T) {
			if k.log != "" {
				if err := os.WriteFile(file, []byte(k.log), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx := t.Context()
			if k.allow != nil {
				ctx = hostabi.WithMountable(ctx, k.allow)
			}
			c, _ := newClient(t, k.o)
			how := newTransfers(t)
			to := srv.Host + "/new/" + strings.ReplaceAll(k.name, " ", "-") + ":v1"
			if err := c.Push(ctx, to, root, cache.OpenFunc, how.report); err != nil {
				t.Fatal(err)
			}
			if got := how.how[hostabi.DigestOf(big)]; got != k.want {
				t.Errorf("the blob went by %s, want %s", got, k.want)
			}
			if got := how.how[hostabi.DigestOf(noise(2, 100))]; got != hostabi.ByNetwork {
				t.Errorf("a small blob went by %s", got)
			}
			s := newSink(t)
			if _, err := c.Pull(t.Context(), to, hostabi.PullOptions{}, s, nil); err != nil {
				t.Fatal(err)
			}
			sameBytes(t, s, hostabi.DigestOf(big), big)
			if err := os.WriteFile(file, []byte(want), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestMountsFromWhatWasPulled: a pull that found everything is enough for a push in the same process.
func TestMountsFromWhatWasPulled(t *testing.T) {
	t.Parallel()
	big := noise(1, 100_000)
	srv, ref, root := pushed(t, dstest.RegistryOptions{}, big)
	cache, dir := newSink(t), t.TempDir()
	ctx := hostabi.WithMountable(t.Context(), func(string) bool { return true })
	for _, to := range []string{"/new/a:v1", "/new/b:v1"} {
		c, _ := newClient(t, registry.Options{MountDir: dir})
		if _, err := c.Pull(ctx, ref, hostabi.PullOptions{}, cache, nil); err != nil {
			t.Fatal(err)
		}
		how := newTransfers(t)
		if err := c.Push(ctx, srv.Host+to, root, cache.OpenFunc, how.report); err != nil {
			t.Fatal(err)
		}
		if got := how.how[hostabi.DigestOf(big)]; got != hostabi.ByMount {
			t.Errorf("%s: the blob went by %s", to, got)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMountMemoryIsBounded: the file of a host is cut when it is too long.
func TestMountMemoryIsBounded(t *testing.T) {
	t.Parallel()
	srv, ref, _ := pushed(t, dstest.RegistryOptions{}, noise(1, 100_000))
	dir := t.TempDir()
	file := filepath.Join(dir, strings.ReplaceAll(srv.Host, ":", "_")+".log")
	line := string(hostabi.DigestOf(nil)) + " some/repository\n"
	if err := os.WriteFile(file, []byte(strings.Repeat(line, 1+(1<<20)/len(line))), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ := newClient(t, registry.Options{MountDir: dir})
	if _, err := c.Pull(t.Context(), ref, hostabi.PullOptions{}, newSink(t), nil); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil || len(b) > 600<<10 || !strings.HasPrefix(string(b), "sha256:") || !strings.HasSuffix(string(b), " team/app\n") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func FuzzMountLines(f *testing.F) {
	f.Add([]byte(string(hostabi.DigestOf(nil)) + " a/b\nx\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for d, r := range registry.MountLines(b) {
			if !d.Valid() || r == "" || strings.ContainsAny(r, " \n") {
				t.Errorf("line %q %q", d, r)
			}
		}
	})
}
