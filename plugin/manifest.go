package plugin

import (
	"time"

	"github.com/delivery-station/ds/hostabi"
)

// APIVersion is the only accepted apiVersion of a plugin manifest; a plugin.yaml without one is protocol 1.
const APIVersion = "ds.plugin/v2"

// Manifest is plugin.yaml (capabilities.md section 1): what a plugin is, its commands, what it asks for.
type Manifest struct {
	APIVersion  string   `json:"apiVersion"`
	Name        Name     `json:"name"`
	Version     string   `json:"version"`
	Description string   `json:"description,omitempty"`
	License     string   `json:"license,omitempty"`
	Homepage    string   `json:"homepage,omitempty"`
	Source      string   `json:"source,omitempty"`
	Keywords    []string `json:"keywords,omitempty"`
	ABI         string   `json:"abi"`
	Requires    []string `json:"requires,omitempty"`

	Commands []Command `json:"commands,omitempty"`
	// Generated is set while the source says "commands: generated"; such a manifest cannot be installed.
	Generated bool `json:"-"`

	Events       Events    `json:"events,omitzero"`
	ConfigSchema string    `json:"config_schema,omitempty"` // file name in a source directory
	Settings     []byte    `json:"-"`                       // JSON Schema text of the settings, if any
	Assets       string    `json:"assets,omitempty"`
	Capabilities []Request `json:"capabilities,omitempty"`
	Limits       Limits    `json:"limits,omitzero"`
	Run          Run       `json:"run"`
}

// Command is one node of the command tree.
type Command struct {
	Name     string    `json:"name"`
	Aliases  []string  `json:"aliases,omitempty"`
	Summary  string    `json:"summary,omitempty"`
	Help     string    `json:"help,omitempty"`
	Examples []string  `json:"examples,omitempty"`
	Hidden   bool      `json:"hidden,omitempty"`
	Output   string    `json:"output,omitempty"` // raw (default) or rows
	Args     []Arg     `json:"args,omitempty"`
	Flags    []Flag    `json:"flags,omitempty"`
	Commands []Command `json:"commands,omitempty"`
}

// Arg is one positional argument. Type is one of string bool int float duration size enum path ref url digest.
type Arg struct {
	Name     string   `json:"name"`
	Summary  string   `json:"summary,omitempty"`
	Type     string   `json:"type,omitempty"`
	Mode     string   `json:"mode,omitempty"`
	Enum     []string `json:"enum,omitempty"`
	Default  string   `json:"default,omitempty"`
	Complete string   `json:"complete,omitempty"`
	Repeat   bool     `json:"repeat,omitempty"`
	Required bool     `json:"required,omitempty"`
}

// Flag is one flag; its types are those of Arg.
type Flag struct {
	Arg
	Short string `json:"short,omitempty"`
}

// Events are the topics that start a handler.
type Events struct {
	Subscribe []Subscription `json:"subscribe,omitempty"`
}

// Subscription starts the command Handler at an event that matches Topic.
type Subscription struct {
	Topic   string `json:"topic"`
	Handler string `json:"handler,omitempty"`
}

// Handlers are the commands that events start, each with the topics that it handles.
func (m *Manifest) Handlers() map[string][]string {
	var out map[string][]string
	for _, s := range m.Events.Subscribe {
		if s.Handler == "" {
			continue
		}
		if out == nil {
			out = make(map[string][]string)
		}
		out[s.Handler] = append(out[s.Handler], s.Topic)
	}
	return out
}

// Request is one capability that the plugin asks for.
type Request struct {
	Cap      hostabi.Capability `json:"cap"`
	Scope    []string           `json:"scope"`
	Reason   string             `json:"reason"`
	Optional bool               `json:"optional,omitempty"`
	Quota    int64              `json:"quota,omitempty"` // bytes
	Sockets  bool               `json:"sockets,omitempty"`
	// Propose, of protocol 1 only, is what consent suggests where Scope is no wish but a bound, and everything;
	// not nil and empty = nothing, the user names it.
	Propose []string `json:"-"`
}

// Proposed is what consent is about: Propose if there is one, else Scope.
func (r Request) Proposed() []string {
	if r.Propose != nil {
		return r.Propose
	}
	return r.Scope
}

// Limits are a request; user and policy may lower them. Zero = the default.
type Limits struct {
	Memory          int64         `json:"memory,omitempty"` // bytes
	Time            time.Duration `json:"time,omitempty"`
	Tmp             int64         `json:"tmp,omitempty"` // bytes
	HTTPConcurrency int           `json:"http_concurrency,omitempty"`
}

// Run says what there is to run. Prefer is native or wasm; empty means wasm.
type Run struct {
	Prefer Kind       `json:"prefer,omitempty"`
	WASM   *RunWASM   `json:"wasm,omitempty"`
	Native *RunNative `json:"native,omitempty"`
}

// RunWASM names the module. Argv replaces argv[0] by an interpreter's words.
type RunWASM struct {
	Artifact string   `json:"artifact"`
	Argv     []string `json:"argv,omitempty"`
}

// RunNative names the program of each platform, "linux/amd64". In JSON the platforms are members beside mode.
type RunNative struct {
	Mode      Mode
	Platforms map[string]string
}
