package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/internal/trust"
)

func (a *app) pluginKeygen() *cobra.Command {
	var out, passphraseFile string
	var plain bool
	c := &cobra.Command{
		Use: "keygen -o FILE", Short: "Make a key that signs plugin packages: FILE and FILE.pub", Args: wants(0, 0, "no arguments"),
		Example: "  ds plugin keygen -o release.pem",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return hostabi.Errorf(hostabi.ReasonUsage, "-o FILE is required").WithFix("ds plugin keygen -o release.pem")
			}
			return a.keygen(cmd.Context(), out, passphraseFile, plain)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "file of the private key; the public key goes beside it, with .pub")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "file with the passphrase to encrypt the key with")
	c.Flags().BoolVar(&plain, "no-passphrase", false, "do not ask for a passphrase on a terminal")
	return c
}

func (a *app) keygen(ctx context.Context, out, passphraseFile string, plain bool) error {
	key, err := trust.GenerateKey()
	if err != nil {
		return err
	}
	var word []byte
	if passphraseFile != "" || !plain && a.term.Facts().Prompts {
		if word, err = a.passphrase(ctx, "passphrase for the new key (empty: none):", passphraseFile); err != nil {
			return err
		}
	}
	text, err := key.Encode(word)
	if err != nil {
		return err
	}
	name := a.absolute(out)
	for _, f := range []struct {
		name string
		text []byte
		mode os.FileMode
	}{{name, text, 0o600}, {name + ".pub", key.PEM(), 0o644}} {
		if err := writeNew(f.name, f.text, f.mode); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.std.out, "%s\n", key.ID())
	fmt.Fprintf(a.stderr(), "note: %s signs, keep it; %s.pub is for users: ds trust add %s.pub --for 'HOST/REPOSITORY/**'\n", out, out, out)
	return nil
}

// writeNew makes a file that must not exist: a key is never overwritten.
func writeNew(name string, text []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return hostabi.Errorf(hostabi.ReasonUsage, "%w", err)
	}
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
