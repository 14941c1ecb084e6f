package config

import (
	"path/filepath"
	"strings"

	"github.com/delivery-station/ds/hostabi"
)

// Paths are the directories of ds before configuration has its say (config.md section 2).
type Paths struct {
	Home                       string
	Config, Data, Cache, State string
}

// FindPaths chooses the directories from the environment. env looks a variable up; home is the user's home
// directory. Without a home and without DS_HOME the error is UNSAFE_DIR. Relative XDG values are ignored
// (XDG Base Directory Specification).
func FindPaths(env func(string) string, home, goos string) (Paths, error) {
	own := env("DS_HOME")
	if home == "" && own == "" {
		return Paths{}, hostabi.Errorf(hostabi.ReasonUnsafeDir, "no home directory").WithFix("export DS_HOME=/a/directory/of/yours")
	}
	p := Paths{Home: home}
	for _, d := range []struct {
		into                         *string
		variable, xdg, unix, windows string
		below                        string
	}{
		{&p.Config, "DS_CONFIG_DIR", "XDG_CONFIG_HOME", ".config", "APPDATA", "config"},
		{&p.Data, "DS_DATA_DIR", "XDG_DATA_HOME", ".local/share", "LOCALAPPDATA", "data"},
		{&p.Cache, "DS_CACHE_DIR", "XDG_CACHE_HOME", ".cache", "LOCALAPPDATA", "cache"},
		{&p.State, "DS_STATE_DIR", "XDG_STATE_HOME", ".local/state", "LOCALAPPDATA", "state"},
	} {
		switch {
		case env(d.variable) != "":
			*d.into = env(d.variable)
		case own != "":
			*d.into = filepath.Join(own, d.below)
		case goos == "windows" && d.windows == "APPDATA":
			*d.into = filepath.Join(env(d.windows), "ds")
		case goos == "windows":
			*d.into = filepath.Join(env(d.windows), "ds", d.below)
		case filepath.IsAbs(env(d.xdg)):
			*d.into = filepath.Join(env(d.xdg), "ds")
		default:
			*d.into = filepath.Join(home, filepath.FromSlash(d.unix), "ds")
		}
	}
	return p, nil
}

// Shorten is path with the home directory as ~, for messages.
func (p Paths) Shorten(path string) string {
	if rest, ok := strings.CutPrefix(path, p.Home+string(filepath.Separator)); ok && p.Home != "" {
		return filepath.Join("~", rest)
	}
	return path
}
