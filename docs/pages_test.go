package docs_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/hostabi/frame"
	"github.com/delivery-station/ds/hostabi/hostv1"
	"github.com/delivery-station/ds/plugin"
	"github.com/delivery-station/ds/sandbox"
)

// TestMethods: the table of services has exactly the methods of the schema.
func TestMethods(t *testing.T) {
	documented := make(map[string]bool)
	service := ""
	for _, row := range table(t, "abi.md", "Service") {
		if row[0] != "" {
			service = row[0]
		}
		for _, m := range words(row[1]) {
			documented[service+"/"+m] = true
		}
		for _, c := range words(row[2]) {
			if strings.Contains(c, ".") && !slices.Contains(hostabi.Capabilities(), hostabi.Capability(c)) {
				t.Errorf("%s: %q is no capability", service, c)
			}
		}
	}
	services := hostv1.File_host_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			name := string(services.Get(i).Name()) + "/" + string(methods.Get(j).Name())
			if !documented[name] {
				t.Errorf("abi.md does not have %s", name)
			}
			delete(documented, name)
		}
	}
	for name := range documented {
		t.Errorf("abi.md has %s, which does not exist", name)
	}
}

// TestReasons: each reason stands beside its code.
func TestReasons(t *testing.T) {
	codes := regexp.MustCompile(`\d+`)
	for _, row := range table(t, "abi.md", "Code") {
		numbers := codes.FindAllString(row[0], -1)
		lists := strings.Split(row[1], "; ")
		if len(numbers) != len(lists) {
			t.Errorf("%s: %d codes and %d lists of reasons", row[0], len(numbers), len(lists))
			continue
		}
		for i, list := range lists {
			for _, r := range strings.Fields(list) {
				info := hostabi.Reason(r).Info()
				if info.Number == 5999 && r != "INTERNAL" {
					t.Errorf("%s is no reason", r)
				}
				if want, _ := strconv.Atoi(numbers[i]); int(info.Code) != want {
					t.Errorf("%s has code %d, not %d", r, info.Code, want)
				}
			}
		}
	}
}

// TestCapabilities: the manifest page has all of them, in order.
func TestCapabilities(t *testing.T) {
	var got []hostabi.Capability
	for _, row := range table(t, "plugin-manifest.md", "Capability") {
		got = append(got, hostabi.Capability(strings.Trim(row[0], "`")))
	}
	if !slices.Equal(got, hostabi.Capabilities()) {
		t.Errorf("the table has %v", got)
	}
}

// TestManifests: what the pages show as a manifest is one, and one of them asks for everything.
func TestManifests(t *testing.T) {
	most := 0
	for _, page := range []string{"abi.md", "plugin-manifest.md"} {
		for _, text := range blocks(t, page, "yaml") {
			if !strings.HasPrefix(text, "apiVersion") {
				continue
			}
			m, warnings, err := plugin.ParseManifestWith(page, []byte(text), sandbox.CheckScope)
			if err != nil || len(warnings) > 0 {
				t.Errorf("%v %v", err, warnings)
				continue
			}
			asked := make(map[hostabi.Capability]bool)
			for _, r := range m.Capabilities {
				asked[r.Cap] = true
			}
			most = max(most, len(asked))
		}
	}
	if most != len(hostabi.Capabilities()) {
		t.Errorf("the largest manifest asks for %d capabilities", most)
	}
}

// TestRequestDigestVector: others compute it from the page.
func TestRequestDigestVector(t *testing.T) {
	text, digest, _ := strings.Cut(one(t, "plugin-manifest.md", "digest"), "\n")
	if got := string(hostabi.DigestOf([]byte(text))); got != strings.TrimSpace(digest) {
		t.Errorf("digest of the text is %s", got)
	}
	got := plugin.RequestDigest([]plugin.Request{
		{Cap: hostabi.StateWrite, Scope: []string{"own"}, Optional: true, Quota: 1 << 20, Reason: "x"},
		{Cap: hostabi.ConfigRead, Scope: []string{"own", "own"}},
	})
	if string(got) != strings.TrimSpace(digest) {
		t.Errorf("ds computes %s", got)
	}
}

// TestFrames: the bytes of the example are frames, and the codec writes the same.
func TestFrames(t *testing.T) {
	for line := range strings.Lines(one(t, "abi.md", "frames")) {
		at := strings.IndexAny(line, "/{")
		head, err := hex.DecodeString(strings.ReplaceAll(line[:at], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		raw := append(head, strings.ReplaceAll(strings.TrimSpace(line[at:]), " ", "")...)
		f, err := frame.Decode(bytes.NewReader(raw), nil)
		if err != nil || f.Enc != hostabi.EncJSON || f.ID != 1 || f.Flags != frame.FlagEnd || len(f.Body) == 0 {
			t.Errorf("%+v %v", f, err)
		}
		if again := frame.Append(nil, &f); !bytes.Equal(again, raw) {
			t.Errorf("%x is written as %x", raw, again)
		}
	}
}

func TestErrorExample(t *testing.T) {
	e := &hostabi.Error{
		Code: hostabi.PermissionDenied, Reason: hostabi.ReasonCapabilityDenied,
		Msg: "demo may not use registry.pull ghcr.io/acme/app: not granted", Fix: "ds plugin grant demo registry.pull=args",
		Meta: map[string]string{"capability": "registry.pull", "resource": "ghcr.io/acme/app", "plugin": "demo"},
	}
	if want, got := string(e.AppendStatus(nil, hostabi.EncJSON)), strings.TrimSpace(one(t, "abi.md", "json")); got != want {
		t.Errorf("the page has\n%s\nds sends\n%s", got, want)
	}
}

// TestLimits: the numbers of the page are those of the code.
func TestLimits(t *testing.T) {
	all := ""
	for _, row := range table(t, "abi.md", "What") {
		all += row[0] + ": " + row[1] + "\n"
	}
	for _, want := range []string{
		fmt.Sprintf("message, each way: %d MiB", hostabi.MaxMessage>>20),
		fmt.Sprintf("method name: %d bytes", hostabi.MaxMethod),
		fmt.Sprintf("open streams; unary calls in flight: %d (TOO_MANY); %d,", hostabi.MaxStreams, hostabi.MaxCalls),
		fmt.Sprintf("queued messages of a stream: %d", hostabi.MaxQueued),
		fmt.Sprintf("open blobs and sinks: %d", hostabi.MaxHandles),
		fmt.Sprintf("chain of %d plugins (CALL_DEPTH), none twice in it (CALL_CYCLE), %d at once", hostabi.MaxDepth, hostabi.MaxChildren),
		fmt.Sprintf("%d KiB of data and attributes; %d attributes of %d KiB; topic %d bytes; content type %d bytes",
			hostabi.MaxEventData>>10, hostabi.MaxAttributes, hostabi.MaxAttribute>>10, hostabi.MaxTopic, hostabi.MaxContentType),
		fmt.Sprintf("%d %03d a second; ring of %d for each subscriber; %d hops", hostabi.MaxEventRate/1000, hostabi.MaxEventRate%1000, hostabi.DefaultRing, hostabi.MaxHops),
		fmt.Sprintf("%d patterns; 16 by Poll, 100 events and %d s", hostabi.MaxPatterns, int(hostabi.MaxPollWait.Seconds())),
		fmt.Sprintf("value %d KiB, key %d bytes", hostabi.MaxStateValue>>10, hostabi.MaxStateKey),
		fmt.Sprintf("record %d KiB; %d %03d a second", hostabi.MaxLogRecord>>10, hostabi.MaxLogRate/1000, hostabi.MaxLogRate%1000),
		fmt.Sprintf("%d reports a second, then the latest; %d KiB", hostabi.MaxProgress, hostabi.MaxPrompt>>10),
		fmt.Sprintf("%d redirects; headers %d MiB; body message %d KiB", hostabi.MaxRedirects, hostabi.MaxHTTPHeader>>20, hostabi.MaxHTTPBody>>10),
		fmt.Sprintf("rows: %d MiB", hostabi.MaxOutput>>20),
		fmt.Sprintf("%d open files", hostabi.MaxOpenFiles),
		fmt.Sprintf("nested calls %d min", int(hostabi.MaxNestedTime.Minutes())),
	} {
		if !strings.Contains(all, want) {
			t.Errorf("abi.md does not say %q", want)
		}
	}
}

// TestLinks: what the pages link to exists.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Glob("../*.md")
	if err != nil || len(top) == 0 {
		t.Fatal(top, err)
	}
	for _, page := range append(pages, top...) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), filepath.FromSlash(file))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s, and there is no such heading", page, m[1])
			}
		}
	}
}

func read(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// anchors are the names of the headings of a page.
func anchors(page string) (out []string) {
	drop := regexp.MustCompile(`[^a-z0-9 _-]`)
	for line := range strings.Lines(page) {
		if text := strings.TrimLeft(line, "#"); text != line && strings.HasPrefix(text, " ") {
			out = append(out, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(text)), ""), " ", "-"))
		}
	}
	return out
}

// blocks are the fenced blocks of one language.
func blocks(t *testing.T, page, language string) (out []string) {
	t.Helper()
	parts := strings.Split("\n"+read(t, page), "\n```")
	for i := 1; i < len(parts); i += 2 {
		if text, ok := strings.CutPrefix(parts[i], language+"\n"); ok {
			out = append(out, text+"\n")
		}
	}
	if len(out) == 0 && language != "yaml" {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return out
}

func one(t *testing.T, page, language string) string {
	t.Helper()
	return blocks(t, page, language)[0]
}

// table are the cells below every header row whose first cell is head.
func table(t *testing.T, page, head string) (rows [][]string) {
	t.Helper()
	in := false
	for line := range strings.Lines(read(t, page)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			in = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == head:
			in = true
		case in && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s has no table that begins with %s", page, head)
	}
	return rows
}

// words are the texts in backticks.
func words(cell string) (out []string) {
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}
