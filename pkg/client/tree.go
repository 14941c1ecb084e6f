package client

// appendTree appends the command tree as JSON, in the form that plugin manifests have. It is written by hand
// because encoding/json would add a quarter to a small WASM module.
func (a *App) appendTree(dst []byte) []byte {
	o := object{dst: append(dst, '{')}
	o.text("name", a.Name)
	o.text("version", a.Version)
	o.text("summary", a.Summary)
	o.list("commands", len(a.Commands), func(i int) { a.Commands[i].append(&o) })
	type subscription struct{ topic, handler string }
	var subs []subscription
	for _, c := range a.Commands {
		for _, t := range c.Events {
			subs = append(subs, subscription{t, c.Name})
		}
	}
	if len(subs) > 0 {
		o.key("events")
		o.open('{')
		o.list("subscribe", len(subs), func(i int) {
			o.open('{')
			o.text("topic", subs[i].topic)
			o.text("handler", subs[i].handler)
			o.close('}')
		})
		o.close('}')
	}
	return append(o.dst, '}')
}

func (c *Command) append(o *object) {
	o.open('{')
	o.text("name", c.Name)
	o.texts("aliases", c.Aliases)
	o.text("summary", c.Summary)
	o.text("help", c.Help)
	o.texts("examples", c.Examples)
	o.flag("hidden", c.Hidden)
	o.list("args", len(c.Args), func(i int) {
		a := &c.Args[i]
		o.open('{')
		o.value(a.Name, a.Summary, a.Type, a.Mode, c.dynamic(a.Type))
		o.flag("repeat", a.Repeat)
		o.flag("required", a.Required)
		o.close('}')
	})
	o.list("flags", len(c.Flags), func(i int) {
		f := &c.Flags[i]
		o.open('{')
		o.value(f.Name, f.Summary, f.Type, f.Mode, c.dynamic(f.Type))
		o.texts("enum", f.Values)
		o.text("default", f.Default)
		o.flag("repeat", f.Repeat)
		o.flag("required", f.Required)
		o.text("short", f.Short)
		o.close('}')
	})
	o.list("commands", len(c.Commands), func(i int) { c.Commands[i].append(o) })
	o.close('}')
}

// dynamic reports whether values of a type are completed by the program.
func (c *Command) dynamic(typ string) bool {
	return c.Complete != nil && typ != "bool" && typ != "enum"
}

// object writes JSON; members that are empty are left out.
type object struct {
	dst   []byte
	comma bool
}

func (o *object) open(b byte) {
	o.dst, o.comma = append(o.dst, b), false
}

func (o *object) close(b byte) {
	o.dst, o.comma = append(o.dst, b), true
}

func (o *object) next() {
	if o.comma {
		o.dst = append(o.dst, ',')
	}
	o.comma = true
}

func (o *object) key(name string) {
	o.next()
	o.dst = append(appendQuoted(o.dst, name), ':')
}

func (o *object) text(name, v string) {
	if v != "" {
		o.key(name)
		o.dst = appendQuoted(o.dst, v)
	}
}

func (o *object) texts(name string, vs []string) {
	o.list(name, len(vs), func(i int) { o.dst = appendQuoted(o.dst, vs[i]) })
}

func (o *object) flag(name string, v bool) {
	if v {
		o.key(name)
		o.dst = append(o.dst, "true"...)
	}
}

func (o *object) list(name string, n int, item func(i int)) {
	if n == 0 {
		return
	}
	o.key(name)
	o.open('[')
	for i := range n {
		o.next()
		item(i)
	}
	o.close(']')
}

// value is what arguments and flags have in common.
func (o *object) value(name, summary, typ, mode string, dynamic bool) {
	o.text("name", name)
	o.text("summary", summary)
	o.text("type", typ)
	o.text("mode", mode)
	if dynamic {
		o.text("complete", "dynamic")
	}
}
