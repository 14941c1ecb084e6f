package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/plugin"
)

func (m Mount) text(home string) string {
	var flags string
	for _, f := range []struct {
		on   bool
		name string
	}{{m.Write, " write"}, {m.Follow, " follow"}, {m.Create, " create"}} {
		if f.on {
			flags += f.name
		}
	}
	s := fmt.Sprintf("%s=%s", m.Guest, strings.Replace(m.Host, home, "~", 1))
	if m.Name != "" {
		s += " name:" + m.Name
	}
	if m.Patterns != nil {
		s += fmt.Sprintf(" %v", m.Patterns)
	}
	if m.Deny != nil {
		s += fmt.Sprintf(" deny%v", m.Deny)
	}
	return s + flags
}

func TestMounts(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("paths of the table are those of Unix")
	}
	for name, c := range map[string]struct {
		read, write []string
		typed       []plugin.Typed
		deny        []string
		want        []string
	}{
		"none":            {want: nil},
		"cwd all":         {read: []string{"cwd:**"}, want: []string{"/cwd=~/proj follow"}},
		"cwd dir":         {read: []string{"cwd:dist/**"}, want: []string{"/cwd/dist=~/proj/dist follow"}},
		"cwd glob":        {read: []string{"cwd:dist/*.txt", "cwd:dist/**/b.txt"}, want: []string{"/cwd/dist=~/proj/dist [*.txt **/b.txt]"}},
		"glob in all":     {read: []string{"cwd:dist/*.txt", "cwd:dist/**"}, want: []string{"/cwd/dist=~/proj/dist follow"}},
		"cwd file":        {read: []string{"cwd:top.txt"}, want: []string{"/cwd=~/proj name:top.txt"}},
		"cwd literal dir": {read: []string{"cwd:dist"}, want: nil},
		"home":            {read: []string{"home:data/**", "home:out/old"}, want: []string{"/home/data=~/data follow", "/home/out=~/out name:old"}},
		"home with ds":    {read: []string{"home:.config/**"}, want: []string{"/home/.config=~/.config deny[ds/**] follow"}},
		"abs":             {read: []string{"abs:/usr/share/**"}, want: []string{"/host/usr/share=/usr/share follow"}},
		"write in read":   {read: []string{"cwd:**"}, write: []string{"cwd:dist/**"}, want: []string{"/cwd=~/proj follow", "/cwd/dist=~/proj/dist write follow"}},
		"same place":      {read: []string{"cwd:**"}, write: []string{"cwd:*.log"}, want: []string{"/cwd=~/proj follow", "/cwd=~/proj [*.log] write"}},
		"write new":       {write: []string{"cwd:build/out/**"}, want: []string{"/cwd=~/proj [build build/out build/out/**] write"}},
		"denied":          {read: []string{"cwd:**"}, deny: []string{"cwd:dist/**"}, want: []string{"/cwd=~/proj deny[dist/**] follow"}},
		"all denied":      {read: []string{"cwd:dist/**"}, deny: []string{"cwd:**"}, want: nil},
		"deny glob":       {read: []string{"cwd:dist/**"}, deny: []string{"cwd:**/*.key", "home:x/**"}, want: []string{"/cwd/dist=~/proj/dist deny[**/*.key] follow"}},
		"typed": {
			read: []string{"args"}, write: []string{"args"},
			typed: []plugin.Typed{
				{Index: 0, Mode: "read", Value: "top.txt"},
				{Index: 1, Mode: "read", Value: "dist"},
				{Index: 2, Mode: "read", Value: "../out/old"},
				{Index: 3, Mode: "read", Value: "../data"},
				{Index: 4, Mode: "write", Value: "new"},
				{Index: 5, Mode: "readwrite", Value: "dist/a.txt"},
				{Index: 6, Mode: "write", Value: "../out/new"},
				{Index: 7, Mode: "read", Value: "gone"},
			},
			want: []string{
				"/args/3=~/out name:old", "/args/4/data=~/data follow", "/args/7=~/out name:new write create", "/cwd=~/proj name:top.txt", "/cwd=~/proj name:new write create",
				"/cwd/dist=~/proj/dist follow", "/cwd/dist=~/proj/dist name:a.txt", "/cwd/dist=~/proj/dist name:a.txt write",
			},
		},
		"typed, not granted": {read: []string{"cwd:dist/**"}, typed: []plugin.Typed{{Mode: "read", Value: "top.txt"}}, want: []string{"/cwd/dist=~/proj/dist follow"}},
		"typed cwd":          {read: []string{"args"}, typed: []plugin.Typed{{Mode: "read", Value: "."}}, want: []string{"/cwd=~/proj follow"}},
		"typed home":         {read: []string{"args"}, typed: []plugin.Typed{{Index: 1, Mode: "read", Value: ".."}}, want: []string{"/args/2/HOME=~ deny[.config/ds/**] follow"}},
		"typed deep new":     {write: []string{"args"}, typed: []plugin.Typed{{Mode: "write", Value: "a/b/c"}}, want: []string{"/cwd=~/proj name:a write create"}},
		"typed deep new 2":   {write: []string{"args"}, typed: []plugin.Typed{{Mode: "write", Value: "dist/b/c"}}, want: []string{"/cwd/dist=~/proj/dist name:b write create"}},
		"typed far new":      {write: []string{"args"}, typed: []plugin.Typed{{Mode: "write", Value: "../nowhere/c"}}, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			var reqs []plugin.Request
			if c.read != nil {
				reqs = append(reqs, req("fs.read", c.read...))
			}
			if c.write != nil {
				reqs = append(reqs, req("fs.write", c.write...))
			}
			w := newWorld(t, reqs...)
			w.o.Denied["fs.read"] = c.deny
			w.o.Invocation.Args = make([]string, 8)
			for i := range c.typed {
				c.typed[i].Type = "path"
				w.o.Invocation.Args[c.typed[i].Index] = c.typed[i].Value
			}
			w.o.Invocation.Typed = c.typed
			var got []string
			for _, m := range w.box(t).Mounts() {
				got = append(got, strings.Replace(m.text(w.home), "/"+filepath.Base(w.home)+"=", "/HOME=", 1))
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestMountLinksOfAProject shows that whoever wrote a project cannot lead a plugin out of it with a link.
func TestMountLinksOfAProject(t *testing.T) {
	w := newWorld(t, req("fs.read", "cwd:out/**", "cwd:in/**", "home:link/**"))
	for name, target := range map[string]string{"proj/out": filepath.Join(w.home, "data"), "proj/in": "dist", "link": filepath.Join(w.home, "data")} {
		if err := os.Symlink(target, filepath.Join(w.home, name)); err != nil {
			t.Skip(err)
		}
	}
	var got []string
	for _, m := range w.box(t).Mounts() {
		got = append(got, m.Guest)
	}
	if !reflect.DeepEqual(got, []string{"/cwd/in", "/home/link"}) {
		t.Errorf("got %q", got)
	}
}

func TestPaths(t *testing.T) {
	w := newWorld(t)
	inside := filepath.Join(w.cwd, "dist/a.txt")
	w.o.Invocation.Args = []string{"up", "dist/a.txt", inside, "../out/old", "--out=" + filepath.Join(w.home, "out/new"), "-o", "./x/../new", "/", "../proj/top.txt", "word"}
	for i, mode := range map[int]string{1: "read", 2: "read", 3: "readwrite", 4: "write", 6: "write", 7: "read", 8: "read"} {
		v := w.o.Invocation.Args[i]
		v = strings.TrimPrefix(v, "--out=")
		w.o.Invocation.Typed = append(w.o.Invocation.Typed, plugin.Typed{Index: i, Type: "path", Mode: mode, Value: v})
	}
	w.o.Invocation.Typed = append(w.o.Invocation.Typed, plugin.Typed{Index: 9, Type: "ref", Value: "word"}, plugin.Typed{Index: 99, Type: "path", Value: "x"})
	args, paths := w.box(t).Paths()
	want := []string{"up", "dist/a.txt", "/cwd/dist/a.txt", "/args/4/old", "--out=/args/5/new", "-o", "./x/../new", "/args/8/root", "/cwd/top.txt", "word"}
	if !reflect.DeepEqual(args, want) {
		t.Errorf("got  %q\nwant %q", args, want)
	}
	got := make(map[int]hostabi.PathArg)
	for _, p := range paths {
		got[p.Index] = p
	}
	if len(got) != 7 || got[2] != (hostabi.PathArg{Index: 2, Typed: "dist/a.txt", Path: "/cwd/dist/a.txt"}) || got[5] != (hostabi.PathArg{Index: 5, Typed: filepath.Join(w.home, "out/new"), Path: "/args/5/new", Write: true}) || !got[4].Write {
		t.Errorf("paths %+v", got)
	}
	if w.o.Invocation.Args[2] != inside {
		t.Error("the words of the invocation were changed")
	}
}
