package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/term"
	"github.com/delivery-station/ds/registry"
)

// maxPassword bounds what --password-stdin reads, in bytes.
const maxPassword = 64 << 10

// registryCommand is ds registry: credentials, and what a registry can do.
func (a *app) registryCommand() *cobra.Command {
	return group("registry", "Log in to registries and ask what they are like",
		a.registryLogin(), a.registryLogout(), a.registryList(), a.registryPing())
}

func (a *app) registryLogin() *cobra.Command {
	var user string
	var stdin, dryRun bool
	c := &cobra.Command{
		Use: "login HOST", Short: "Check credentials of a registry and store them", Args: wants(1, 1, "one host"),
		Long: "Ask the registry whether it takes the credentials, and store them only then: in the credential helper\n" +
			"of docker's configuration or of this system, else in auth.json beside the configuration of ds.",
		Example: "  ds registry login ghcr.io -u octo\n  pass show ghcr | ds registry login ghcr.io -u octo --password-stdin",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.login(cmd.Context(), registry.Credential{Registry: args[0], Username: user}, stdin, dryRun)
		},
	}
	c.Flags().StringVarP(&user, "username", "u", "", "account name; asked for if there is a terminal")
	c.Flags().BoolVar(&stdin, "password-stdin", false, "read the password or token from standard input")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "ask the registry, store nothing")
	return c
}

func (a *app) login(ctx context.Context, cr registry.Credential, stdin, dryRun bool) (err error) {
	client, err := a.parts.registry()
	if err != nil {
		return err
	}
	if cr.Username == "" {
		if stdin {
			return hostabi.Errorf(hostabi.ReasonUsage, "--password-stdin needs --username").WithFix("ds registry login %s --username USER --password-stdin", cr.Registry)
		}
		if cr.Username, _, err = a.term.Prompt(ctx, hostabi.Prompt{Kind: "input", Text: "Username for " + term.Clean(cr.Registry, 200)}); err != nil {
			return withLoginFix(err, cr)
		}
	}
	if cr.Password, err = a.password(ctx, cr, stdin); err != nil {
		return withLoginFix(err, cr)
	}
	stored, plain, err := client.Login(ctx, cr.Registry, cr, !dryRun)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stderr(), "Logged in to %s as %s. ", cr.Registry, term.Clean(cr.Username, 100))
	if dryRun {
		fmt.Fprintln(a.stderr(), "Nothing was stored.")
		return nil
	}
	fmt.Fprintf(a.stderr(), "Stored by %s.\n", stored)
	if plain {
		a.warn("the password is not encrypted in "+stored, "install a docker credential helper and log in again")
	}
	return nil
}

// withLoginFix says how to log in where nobody can be asked.
func withLoginFix(err error, cr registry.Credential) error {
	if e := hostabi.AsError(err); e.Reason == hostabi.ReasonNoTerminal {
		return e.WithFix("ds registry login %s -u USER --password-stdin <FILE", cr.Registry)
	}
	return err
}

// password reads the secret and makes it known as one before anything else sees it.
func (a *app) password(ctx context.Context, cr registry.Credential, stdin bool) (secret string, err error) {
	if stdin {
		b, err := io.ReadAll(io.LimitReader(a.std.in, maxPassword+1))
		if err != nil {
			return "", hostabi.Errorf(hostabi.ReasonUsage, "reading the password from standard input: %w", err)
		}
		if len(b) > maxPassword {
			return "", hostabi.Errorf(hostabi.ReasonUsage, "the password on standard input is over %d bytes", maxPassword)
		}
		secret = strings.TrimRight(string(b), "\r\n")
	} else if secret, _, err = a.term.Prompt(ctx, hostabi.Prompt{Kind: "secret", Text: fmt.Sprintf("Password or token for %s@%s", term.Clean(cr.Username, 100), term.Clean(cr.Registry, 200))}); err != nil {
		return "", err
	}
	if secret == "" {
		return "", hostabi.Errorf(hostabi.ReasonUsage, "the password is empty")
	}
	a.secrets.Add(secret)
	return secret, nil
}

func (a *app) registryLogout() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "logout HOST", Short: "Forget the stored credentials of a registry", Args: wants(1, 1, "one host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.parts.registry()
			if err != nil {
				return err
			}
			removed, left, err := client.Logout(cmd.Context(), args[0], dryRun)
			for _, where := range removed {
				what := "Removed"
				if dryRun {
					what = "Would remove"
				}
				fmt.Fprintf(a.stderr(), "%s the credentials of %s from %s.\n", what, args[0], where)
			}
			if err != nil {
				return err
			}
			if len(removed) == 0 {
				fmt.Fprintf(a.stderr(), "note: nothing was stored for %s\n", args[0])
			}
			if len(left) > 0 {
				a.warn(args[0]+" still has credentials in "+strings.Join(left, ", "), "")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	return c
}

func (a *app) registryList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Who you are at which registry, and where that is stored", Aliases: []string{"ls"}, Args: wants(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := a.parts.registry()
			if err != nil {
				return err
			}
			logins, err := client.Logins(cmd.Context())
			if err != nil {
				return err
			}
			type row struct {
				Host   string `json:"host"`
				User   string `json:"user"`
				Source string `json:"source"`
			}
			rows := make([]row, 0, len(logins))
			for _, l := range logins {
				rows = append(rows, row(l))
			}
			return a.rows(term.RowsOf([]string{"host", "user", "source"}, rows...))
		},
	}
}

func (a *app) registryPing() *cobra.Command {
	return &cobra.Command{
		Use: "ping HOST[/REPOSITORY[:TAG]]", Short: "TLS, authentication, referrers and ranges of a registry", Args: wants(1, 1, "one host or reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.parts.registry()
			if err != nil {
				return err
			}
			info, err := client.Ping(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.rows(term.ObjectOf([]string{"host", "tls", "auth", "realm", "login", "referrers", "ranges"}, struct {
				Host      string `json:"host"`
				TLS       string `json:"tls"`
				Auth      string `json:"auth"`
				Realm     string `json:"realm,omitempty"`
				Login     string `json:"login,omitempty"`
				Referrers string `json:"referrers,omitempty"`
				Ranges    string `json:"ranges,omitempty"`
			}(info)))
		},
	}
}
