package plugin

// The package format of a plugin: one OCI index per version (install-trust.md section 1).
const (
	// IndexType is the artifactType of the index of one version.
	IndexType = "application/vnd.delivery-station.plugin.index.v1+json"
	// BinaryType is a native program: one zstd frame of one file.
	BinaryType = "application/vnd.delivery-station.plugin.binary.v2+zstd"
	// ModuleConfigType is the config of a WASM child (CNCF Wasm OCI layout).
	ModuleConfigType = "application/vnd.wasm.config.v0+json"
	// ModuleType is the layer of a WASM child: the module, raw.
	ModuleType = "application/wasm"
	// ModuleZstdType is a module in one zstd frame, which only ds reads.
	ModuleZstdType = "application/vnd.delivery-station.plugin.wasm.v2+zstd"
	// ModuleOldType is what older tools call a module.
	ModuleOldType = "application/vnd.module.wasm.content.layer.v1+wasm"
	// LegacyBinaryType is a native program as the original DS installs it: the raw file.
	LegacyBinaryType = "application/vnd.delivery-station.plugin.v1+binary"
	// AssetsType is the optional assets child: a tar in one zstd frame.
	AssetsType = "application/vnd.delivery-station.plugin.assets.v2.tar+zstd"
	// ManifestType is the plugin manifest child: JSON of at most 64 KiB.
	ManifestType = "application/vnd.delivery-station.plugin.manifest.v2+json"

	// BundleType is a Sigstore bundle: the layer and the artifactType of the referrers that hold signatures.
	BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

	// UncompressedDigest and UncompressedSize annotate every zstd layer.
	UncompressedDigest = "delivery-station.io/uncompressed.digest"
	UncompressedSize   = "delivery-station.io/uncompressed.size"
	// LegacySignature on a v2 layer makes the original DS stop instead of installing compressed bytes.
	LegacySignature = "delivery-station.io/signature"
	// LegacyKeyID names the key of LegacySignature.
	LegacyKeyID = "delivery-station.io/key.id"

	// OCI media types and annotations (image-spec).
	OCIIndex    = "application/vnd.oci.image.index.v1+json"
	OCIManifest = "application/vnd.oci.image.manifest.v1+json"
	OCIEmpty    = "application/vnd.oci.empty.v1+json"
	OCITitle    = "org.opencontainers.image.title"
	OCIVersion  = "org.opencontainers.image.version"
	OCICreated  = "org.opencontainers.image.created"
	OCILicenses = "org.opencontainers.image.licenses"
)

// OCIDescriptor is the JSON form of a descriptor of image-spec v1.1, as far as packages use it.
type OCIDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Platform     *OCIPlatform      `json:"platform,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// OCIPlatform is the platform of a descriptor.
type OCIPlatform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// OCIDocument is an image manifest or, with Manifests, an image index.
type OCIDocument struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *OCIDescriptor    `json:"config,omitempty"`
	Layers        []OCIDescriptor   `json:"layers,omitempty"`
	Manifests     []OCIDescriptor   `json:"manifests,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}
