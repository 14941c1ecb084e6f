package registry_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/registry"
)

// testreg starts a distribution v3 registry that ends with the test, and returns its host.
func testreg(t *testing.T, args ...string) string {
	t.Helper()
	program := os.Getenv("DS_TESTREG")
	if program == "" {
		t.Skip("DS_TESTREG names no registry program: make registrytest builds it")
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	stdin, err := cmd.StdinPipe() // it ends when this is closed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait() // killed with the context by then
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", program, err)
	}
	return strings.TrimSpace(line)
}

// distributions are the kinds of a registry that has no referrers API and checks every manifest that it takes.
func distributions(t *testing.T) (list []place) {
	t.Helper()
	for _, auth := range []string{"none", "basic", "token"} {
		host := testreg(t, "-auth", auth, "-user", "octo", "-password", canary)
		var n atomic.Int64
		p := place{name: "distribution " + auth, ref: func(*testing.T) string { return fmt.Sprintf("%s/team/app%d", host, n.Add(1)) }}
		if auth != "none" {
			p.creds = []registry.Credential{{Registry: host, Username: "octo", Password: canary}}
		}
		list = append(list, p)
	}
	return list
}

// TestDistribution runs the suite over registries of the distribution project.
func TestDistribution(t *testing.T) {
	t.Parallel()
	list := distributions(t)
	t.Run("suite", func(t *testing.T) { everywhere(t, list, append(places(), list...)) })
	t.Run("to", func(t *testing.T) {
		for _, from := range places() {
			for _, to := range list {
				t.Run(from.name+" "+to.name, func(t *testing.T) { testCopy(t, from, to) })
			}
		}
	})
}

// TestDistributionCredentials: wrong and missing credentials, and what ping finds out.
func TestDistributionCredentials(t *testing.T) {
	t.Parallel()
	for _, p := range distributions(t) {
		ref := p.ref(t)
		c := p.client(t)
		local := newSink(t)
		mustPush(t, c, ref+":v1", local.artifact(t, noise(1, 100)), local)
		host, _, _ := strings.Cut(ref, "/")
		want := registry.HostInfo{Host: host, TLS: "plain HTTP", Auth: "none", Referrers: "tag", Ranges: "yes"}
		switch p.name {
		case "distribution basic":
			want.Auth, want.Login = "Basic", "auth.credentials"
		case "distribution token":
			want.Auth, want.Login, want.Realm = "Bearer", "auth.credentials", host
		}
		if got, err := c.Ping(t.Context(), ref+":v1"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", p.name, got, err)
		}
		if len(p.creds) == 0 {
			continue
		}
		for name, creds := range map[string][]registry.Credential{"none": nil, "wrong": {{Registry: host, Username: "octo", Password: canary + "x"}}} {
			stranger, _ := newClient(t, registry.Options{Credentials: creds})
			_, err := stranger.Pull(t.Context(), ref+":v1", hostabi.PullOptions{}, newSink(t), nil)
			if got := hostabi.ReasonOf(err); got != hostabi.ReasonAuthRequired {
				t.Errorf("%s, %s credentials: %v", p.name, name, err)
			}
			noCanary(t, err)
		}
	}
}
