package client

import "github.com/delivery-station/ds/hostabi"

// The words of the host ABI that plugins use.
type (
	Digest     = hostabi.Digest
	Descriptor = hostabi.Descriptor
	Platform   = hostabi.Platform
	Event      = hostabi.Event
	StateEntry = hostabi.StateEntry
	BlobInfo   = hostabi.BlobInfo
	Error      = hostabi.Error
	Session    = hostabi.Session
)
