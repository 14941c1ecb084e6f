package client_test

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/delivery-station/ds/hostabi"
	"github.com/delivery-station/ds/pkg/client"
)

type (
	ctx  = context.Context
	dig  = client.Digest
	desc = client.Descriptor
)

// Every signature that plugins are written against. A change here breaks them.
var (
	_ func(...client.Option) (*client.Client, error)         = client.NewClient
	_ func(any) client.Option                                = client.WithConfig
	_ func(*slog.Logger) client.Option                       = client.WithLogger
	_ func(hostabi.Session) client.Option                    = client.WithSession
	_ func(time.Duration) client.Option                      = client.WithCallTimeout
	_ func(*client.Client) error                             = (*client.Client).Close
	_ func(*client.Description, string) string               = (*client.Description).Typed
	_ func(string, error) error                              = client.FileError
	_ func(*client.Client) (hostabi.Session, error)          = (*client.Client).Session
	_ func(*client.Client, ctx) (*client.Description, error) = (*client.Client).Describe

	_ func(*client.Client, ctx, string, io.Writer, ...client.RefOption) error            = (*client.Client).Pull
	_ func(*client.Client, ctx, string, io.Reader, string, ...client.PushOption) error   = (*client.Client).Push
	_ func(*client.Client, ctx, string) ([]string, error)                                = (*client.Client).List
	_ func(*client.Client, ctx, string, ...client.RefOption) ([]client.Artifact, error)  = (*client.Client).Fetch
	_ func(*client.Client, ctx, string, ...client.RefOption) (desc, error)               = (*client.Client).Resolve
	_ func(*client.Client, ctx, string, client.Spec, ...client.PushOption) (desc, error) = (*client.Client).PushArtifact
	_ func(*client.Client, ctx, string, dig, ...client.PushOption) (desc, error)         = (*client.Client).PushCached
	_ func(*client.Client, ctx, string, string, ...client.RefOption) (desc, error)       = (*client.Client).Copy
	_ func(*client.Client, ctx, string, string) error                                    = (*client.Client).Tag
	_ func(*client.Client, ctx, string, string) iter.Seq2[desc, error]                   = (*client.Client).Referrers
	_ func(string) client.RefOption                                                      = client.WithPlatform
	_ func() client.RefOption                                                            = client.AllPlatforms
	_ func(string) client.RefOption                                                      = client.WithLayer
	_ func() client.RefOption                                                            = client.Fresh
	_ func(...string) client.PushOption                                                  = client.WithTags

	_ func(*client.Client, ctx, string, []string, ...client.CallOption) (*client.Result, error) = (*client.Client).CallPlugin
	_ func(io.Reader) client.CallOption                                                         = client.WithStdin
	_ func(...dig) client.CallOption                                                            = client.WithBlobs
	_ func(io.Writer, io.Writer) client.CallOption                                              = client.WithOutput
	_ func(*client.Client, ctx) ([]client.PluginInfo, error)                                    = (*client.Client).Plugins

	_ func(*client.Client, ctx, string, any, ...client.PublishOption) error = (*client.Client).Publish
	_ func(string, string) client.PublishOption                             = client.WithAttribute
	_ func(*client.Client, ctx, ...string) (*client.Subscription, error)    = (*client.Client).Subscribe
	_ func(*client.Subscription, ctx) (client.Event, error)                 = (*client.Subscription).Next
	_ func(*client.Subscription) error                                      = (*client.Subscription).Close

	_ func(*client.Client, ctx, string, []byte, ...client.StateOption) (uint64, error)             = (*client.Client).SetState
	_ func(*client.Client, ctx, string, int64, ...client.StateOption) (int64, error)               = (*client.Client).AddState
	_ func(*client.Client, ctx, string, ...client.StateOption) (*client.StateEntry, error)         = (*client.Client).GetState
	_ func(*client.Client, ctx, string, ...client.StateOption) error                               = (*client.Client).DeleteState
	_ func(*client.Client, ctx, string, ...client.StateOption) iter.Seq2[client.StateEntry, error] = (*client.Client).ListState
	_ func(time.Duration) client.StateOption                                                       = client.WithTTL
	_ func(string) client.StateOption                                                              = client.WithOwner
	_ func(uint64) client.StateOption                                                              = client.IfRevision
	_ func(ctx, *client.Client, string, any, ...client.StateOption) (uint64, error)                = client.SetJSON
	_ func(ctx, *client.Client, string, ...client.StateOption) (int, uint64, error)                = client.GetJSON[int]

	_ func(*client.Client, ctx, any) error              = (*client.Client).Config
	_ func(*client.Client, ctx, string, any) error      = (*client.Client).ConfigValue
	_ func(*client.Client, ctx, string) (string, error) = (*client.Client).Secret

	_ func(*client.Client) *client.Cache                                                 = (*client.Client).Cache
	_ func(*client.Cache, ctx, dig) (client.BlobInfo, error)                             = (*client.Cache).Stat
	_ func(*client.Cache, ctx, dig) (*client.Blob, error)                                = (*client.Cache).Open
	_ func(*client.Cache, ctx, io.Reader, ...client.BlobOption) (client.BlobInfo, error) = (*client.Cache).Put
	_ func(*client.Cache, ctx, ...client.BlobOption) (*client.BlobWriter, error)         = (*client.Cache).Create
	_ func(*client.BlobWriter, ctx) (client.BlobInfo, error)                             = (*client.BlobWriter).Commit
	_ func(*client.BlobWriter) string                                                    = (*client.BlobWriter).Path
	_ func(*client.Blob) string                                                          = (*client.Blob).Path
	_ func(*client.Blob) client.BlobInfo                                                 = (*client.Blob).Info
	_ func(*client.Cache, ctx, ...client.ListOption) iter.Seq2[client.BlobInfo, error]   = (*client.Cache).List
	_ func(*client.Cache, ctx, dig, time.Duration) error                                 = (*client.Cache).Pin
	_ func(*client.Cache, ctx, dig) error                                                = (*client.Cache).Remove
	_ func(*client.Cache, ctx) (client.CacheUsage, error)                                = (*client.Cache).Usage
	_ func(*client.Cache, ctx, client.EvictOptions) iter.Seq2[client.BlobInfo, error]    = (*client.Cache).Evict
	_ func(*client.Cache, ctx, bool, ...dig) iter.Seq2[client.Verdict, error]            = (*client.Cache).Verify
	_ func(dig, int64) client.BlobOption                                                 = client.WithExpected
	_ func(string) client.BlobOption                                                     = client.WithMediaType
	_ func(string) client.BlobOption                                                     = client.WithRepository
	_ func(string) client.ListOption                                                     = client.WithSource
	_ interface {
		io.Reader
		io.ReaderAt
		io.Seeker
		io.Closer
	} = (*client.Blob)(nil)
	_ io.WriteCloser = (*client.BlobWriter)(nil)

	_ func(*client.Client, string, int64) *client.Progress                         = (*client.Client).Progress
	_ func(*client.Progress, int64)                                                = (*client.Progress).Add
	_ func(*client.Progress, io.Reader) io.Reader                                  = (*client.Progress).Reader
	_ func(*client.Progress, error)                                                = (*client.Progress).Done
	_ func(*client.Client) *slog.Logger                                            = (*client.Client).Logger
	_ func(*client.Client, any) error                                              = (*client.Client).Rows
	_ func(*client.Client, ctx, string, bool) (bool, error)                        = (*client.Client).Confirm
	_ func(*client.Client, ctx, string, bool) (string, error)                      = (*client.Client).Ask
	_ func(*client.Client, ctx, *client.HTTPRequest) (*client.HTTPResponse, error) = (*client.Client).Do

	_ = []error{
		client.ErrNoHost, client.ErrDenied, client.ErrNotFound, client.ErrExists, client.ErrConflict, client.ErrInvalid,
		client.ErrAuth, client.ErrUnavailable, client.ErrOffline, client.ErrQuota, client.ErrDigest, client.ErrUnsupported,
	}

	_ func(client.App)                                                    = client.Main
	_ func(client.App, ctx, client.Stdio, hostabi.Session, ...string) int = client.App.Run
	_ func(*client.Invocation, string) string                             = (*client.Invocation).Value
	_ func(*client.Invocation, string) []string                           = (*client.Invocation).Values
	_ func(*client.Invocation, string) bool                               = (*client.Invocation).Bool
	_ func(*client.Invocation, string) int64                              = (*client.Invocation).Int
	_ func(*client.Invocation, string) time.Duration                      = (*client.Invocation).Duration
	_ func(*client.Invocation, string) bool                               = (*client.Invocation).Changed
	_ func(*client.Invocation, string, ...any)                            = (*client.Invocation).Printf
	_ func(string, ...any) error                                          = client.Usagef
	_ func(*client.Result) string                                         = (*client.Result).String

	_ = client.Artifact{Ref: "", Root: desc{}, Manifest: desc{}, Layers: []client.Layer{{Descriptor: desc{}, Title: ""}}, Annotations: nil, CachedBytes: 0, FetchedBytes: 0}
	_ = client.Spec{
		ArtifactType: "", Config: &client.Content{}, Layers: []client.Content{}, Annotations: nil, Subject: &desc{},
		Platform: &client.Platform{}, Children: []client.Spec{},
	}
	_ = client.Content{MediaType: "", Title: "", Digest: dig(""), Open: func() (io.ReadCloser, error) { return nil, nil }, Annotations: nil}
	_ = client.Result{ExitCode: 0, Stdout: nil, Stderr: nil}
	_ = client.ExitError{Code: 0, Err: nil}
	_ = client.HTTPRequest{Method: "", URL: "", Header: map[string][]string{}, Body: nil, BodyBlob: dig(""), Sink: (*client.BlobWriter)(nil)}
	_ = client.HTTPResponse{Status: 0, Header: map[string][]string{}, URL: "", Body: nil}
	_ = client.App{Name: "", Version: "", Summary: "", Commands: nil, Options: []client.Option{}}
	_ = client.Command{
		Name: "", Summary: "", Help: "", Aliases: []string{}, Examples: nil, Args: []client.Arg{}, Flags: []client.Flag{}, Commands: []client.Command{},
		Hidden: false, Events: []string{}, Run: func(ctx, *client.Invocation) error { return nil },
		Complete: func(ctx, *client.Invocation, string) ([]string, error) { return nil, nil },
	}
	_ = client.Stdio{In: nil, Out: nil, Err: nil}
	_ = client.Arg{Name: "", Summary: "", Type: "", Mode: "", Required: false, Repeat: false}
	_ = client.Flag{Name: "", Short: "", Summary: "", Type: "", Mode: "", Default: "", Values: []string{}, Repeat: false, Required: false}
	_ = client.Invocation{Client: nil, Command: "", Args: []string{}, Event: (*client.Event)(nil), Stdin: nil, Stdout: nil, Stderr: nil}
)
