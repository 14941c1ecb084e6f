package hostabi

// Reason says why a call or command failed: the word that goes over the wire (google.rpc.ErrorInfo.reason)
// and, by its Number, the DSnnnn that users see.
type Reason string

// The reasons. Number, code and exits of each are in the one table below.
const (
	ReasonUsage               Reason = "USAGE"                // bad argument, value or conflict
	ReasonBadFrame            Reason = "BAD_FRAME"            // malformed frame
	ReasonBadPointer          Reason = "BAD_POINTER"          // pointer outside guest memory
	ReasonBadHandle           Reason = "BAD_HANDLE"           // unknown, closed or foreign handle
	ReasonBadDigest           Reason = "BAD_DIGEST"           // malformed digest
	ReasonBadTopic            Reason = "BAD_TOPIC"            // malformed or reserved topic
	ReasonBadKey              Reason = "BAD_KEY"              // malformed state key
	ReasonBadURL              Reason = "BAD_URL"              // malformed URL
	ReasonBadMessage          Reason = "BAD_MESSAGE"          // message does not decode or breaks a rule
	ReasonUnknownCommand      Reason = "UNKNOWN_COMMAND"      // unknown subcommand or flag
	ReasonNoTerminal          Reason = "NO_TERMINAL"          // input needed, no terminal
	ReasonFormat              Reason = "FORMAT"               // bad format, jq expression or template
	ReasonConfigKey           Reason = "CONFIG_KEY"           // unknown configuration key
	ReasonConfigValue         Reason = "CONFIG_VALUE"         // bad type or value
	ReasonConfigSyntax        Reason = "CONFIG_SYNTAX"        // syntax or size limit
	ReasonConfigVariable      Reason = "CONFIG_VARIABLE"      // ${VAR} unset
	ReasonConfigFile          Reason = "CONFIG_FILE"          // file missing, unreadable, or two formats
	ReasonConfigVersion       Reason = "CONFIG_VERSION"       // written for another version
	ReasonUnknownVariable     Reason = "UNKNOWN_VARIABLE"     // unknown DS_ variable (warning)
	ReasonConfigAmbiguous     Reason = "CONFIG_AMBIGUOUS"     // variable fits two keys
	ReasonUnsafeDir           Reason = "UNSAFE_DIR"           // unsafe directory, or no home
	ReasonRef                 Reason = "REF"                  // bad reference
	ReasonRefNotFound         Reason = "REF_NOT_FOUND"        // not in the registry
	ReasonOffline             Reason = "OFFLINE"              // offline
	ReasonAuthRequired        Reason = "AUTH_REQUIRED"        // not authenticated
	ReasonForbidden           Reason = "FORBIDDEN"            // registry forbids
	ReasonRegistryUnavailable Reason = "REGISTRY_UNAVAILABLE" // registry unavailable
	ReasonTLS                 Reason = "TLS"                  // TLS failed or plain HTTP refused
	ReasonBadAnswer           Reason = "BAD_ANSWER"           // bad answer of a registry
	ReasonRateLimited         Reason = "RATE_LIMITED"         // rate limited by a registry
	ReasonFeatureMissing      Reason = "FEATURE_MISSING"      // feature missing in a registry
	ReasonCredentialHelper    Reason = "CREDENTIAL_HELPER"    //nolint:gosec // a word; credential helper or file failed
	ReasonNotAPlugin          Reason = "NOT_A_PLUGIN"         // not a plugin package
	ReasonAddressDenied       Reason = "ADDRESS_DENIED"       // address guard
	ReasonRedirectDenied      Reason = "REDIRECT_DENIED"      // redirect refused
	ReasonPushRefused         Reason = "PUSH_REFUSED"         // push refused
	ReasonBadLayout           Reason = "BAD_LAYOUT"           // bad OCI layout or tar
	ReasonDigestMismatch      Reason = "DIGEST_MISMATCH"      // digest or size mismatch
	ReasonNoSpace             Reason = "NO_SPACE"             // disk full or over quota
	ReasonReadOnly            Reason = "READ_ONLY"            // store is read-only
	ReasonCacheCorrupt        Reason = "CACHE_CORRUPT"        // cached blob corrupt
	ReasonLockHeld            Reason = "LOCK_HELD"            // lock held too long
	ReasonPluginNotFound      Reason = "PLUGIN_NOT_FOUND"     // plugin not found
	ReasonManifest            Reason = "MANIFEST"             // bad plugin manifest
	ReasonABIUnsupported      Reason = "ABI_UNSUPPORTED"      // needs another host ABI
	ReasonPlatformUnsupported Reason = "PLATFORM_UNSUPPORTED" // built for another platform
	ReasonSignature           Reason = "SIGNATURE"            // bad signature
	ReasonUnsigned            Reason = "UNSIGNED"             // unsigned
	ReasonGrantMissing        Reason = "GRANT_MISSING"        // consent needed
	ReasonPluginInactive      Reason = "PLUGIN_INACTIVE"      // installed but waits for consent
	ReasonLockDrift           Reason = "LOCK_DRIFT"           // differs from the lock file
	ReasonPluginModified      Reason = "PLUGIN_MODIFIED"      // installed files changed
	ReasonNameAmbiguous       Reason = "NAME_AMBIGUOUS"       // name in several plugin indexes
	ReasonNameTaken           Reason = "NAME_TAKEN"           // name reserved or taken
	ReasonPolicyFile          Reason = "POLICY_FILE"          // policy file refuses or is unsafe
	ReasonDisabled            Reason = "DISABLED"             // plugin disabled
	ReasonIndexExpired        Reason = "INDEX_EXPIRED"        // plugin index expired or rolled back
	ReasonSignerChanged       Reason = "SIGNER_CHANGED"       // signer changed
	ReasonDowngrade           Reason = "DOWNGRADE"            // older than a version seen before
	ReasonSignerUntrusted     Reason = "SIGNER_UNTRUSTED"     // signer not trusted yet
	ReasonVersionMoved        Reason = "VERSION_MOVED"        // version has other content now
	ReasonPackageInvalid      Reason = "PACKAGE_INVALID"      // plugin package invalid
	ReasonCapabilityDenied    Reason = "CAPABILITY_DENIED"    // capability not granted
	ReasonPolicyDenied        Reason = "POLICY_DENIED"        // refused by the policy file
	ReasonCompletion          Reason = "COMPLETION"           // not allowed while completing
	ReasonTimeout             Reason = "TIMEOUT"              // deadline
	ReasonStartFailed         Reason = "START_FAILED"         // plugin did not start
	ReasonWASMTrap            Reason = "WASM_TRAP"            // WASM trap
	ReasonMemoryLimit         Reason = "MEMORY_LIMIT"         // memory limit
	ReasonCallDepth           Reason = "CALL_DEPTH"           // call chain too deep
	ReasonCallCycle           Reason = "CALL_CYCLE"           // plugin calls itself
	ReasonInterrupted         Reason = "INTERRUPTED"          // interrupted
	ReasonProtocol            Reason = "PROTOCOL"             // plugin broke the protocol
	ReasonSandboxRequired     Reason = "SANDBOX_REQUIRED"     // sandbox required but missing
	ReasonModuleRefused       Reason = "MODULE_REFUSED"       // WASM module refused
	ReasonQuota               Reason = "QUOTA"                // quota exceeded
	ReasonTooMany             Reason = "TOO_MANY"             // too many at once
	ReasonCredit              Reason = "CREDIT"               // stream sent beyond its credit
	ReasonRate                Reason = "RATE"                 // rate exceeded
	ReasonStateConflict       Reason = "STATE_CONFLICT"       // revision conflict
	ReasonUnknownMethod       Reason = "UNKNOWN_METHOD"       // unknown method
	ReasonTooLarge            Reason = "TOO_LARGE"            // message or module too large
	ReasonNATSUnavailable     Reason = "NATS_UNAVAILABLE"     // NATS unreachable
	ReasonExists              Reason = "EXISTS"               // exists
	ReasonKeyNotFound         Reason = "KEY_NOT_FOUND"        // no such key
	ReasonNotCached           Reason = "NOT_CACHED"           // no such blob
	ReasonGraphIncomplete     Reason = "GRAPH_INCOMPLETE"     // part of the graph is missing
	ReasonRemoteCache         Reason = "REMOTE_CACHE"         // remote cache unavailable (warning)
	ReasonStateCorrupt        Reason = "STATE_CORRUPT"        // state file damaged
	ReasonInternal            Reason = "INTERNAL"             // internal error
)

// ReasonInfo is one row of the reason table.
type ReasonInfo struct {
	Reason  Reason
	Number  int    // DSnnnn of cli.md section 6; several reasons may share one; never reused
	Code    Code   // on the wire
	Exit    int    // of a built-in command that ends with it
	RunExit int    // of ds PLUGIN when ds itself failed with it
	Text    string // what the number means, in a few words
}

// reasons is the one table; everything else is derived from it.
var reasons = [...]ReasonInfo{
	{ReasonUsage, 1001, InvalidArgument, 2, 125, "bad argument, value or conflict"},
	{ReasonBadFrame, 1001, InvalidArgument, 2, 125, "malformed frame"},
	{ReasonBadPointer, 1001, InvalidArgument, 2, 125, "pointer outside guest memory"},
	{ReasonBadHandle, 1001, InvalidArgument, 2, 125, "unknown, closed or foreign handle"},
	{ReasonBadDigest, 1001, InvalidArgument, 2, 125, "malformed digest"},
	{ReasonBadTopic, 1001, InvalidArgument, 2, 125, "malformed or reserved topic"},
	{ReasonBadKey, 1001, InvalidArgument, 2, 125, "malformed state key"},
	{ReasonBadURL, 1001, InvalidArgument, 2, 125, "malformed URL"},
	{ReasonBadMessage, 1001, InvalidArgument, 2, 125, "message does not decode or breaks a rule"},
	{ReasonUnknownCommand, 1002, InvalidArgument, 2, 125, "unknown subcommand or flag"},
	{ReasonNoTerminal, 1003, FailedPrecondition, 2, 125, "input needed, no terminal"},
	{ReasonFormat, 1004, InvalidArgument, 2, 125, "bad format, jq expression or template"},
	{ReasonConfigKey, 1101, InvalidArgument, 2, 125, "unknown configuration key"},
	{ReasonConfigValue, 1102, InvalidArgument, 2, 125, "bad type or value"},
	{ReasonConfigSyntax, 1103, InvalidArgument, 2, 125, "syntax or size limit"},
	{ReasonConfigVariable, 1104, InvalidArgument, 2, 125, "${VAR} unset"},
	{ReasonConfigFile, 1105, InvalidArgument, 2, 125, "file missing, unreadable, or two formats"},
	{ReasonConfigVersion, 1106, InvalidArgument, 2, 125, "written for another version"},
	{ReasonUnknownVariable, 1109, InvalidArgument, 2, 125, "unknown DS_ variable (warning)"},
	{ReasonConfigAmbiguous, 1111, InvalidArgument, 2, 125, "variable fits two keys"},
	{ReasonUnsafeDir, 1112, InvalidArgument, 2, 125, "unsafe directory, or no home"},
	{ReasonRef, 2001, InvalidArgument, 2, 125, "bad reference"},
	{ReasonRefNotFound, 2002, NotFound, 3, 125, "not in the registry"},
	{ReasonOffline, 2003, Unavailable, 6, 125, "offline"},
	{ReasonAuthRequired, 2004, Unauthenticated, 4, 125, "not authenticated"},
	{ReasonForbidden, 2005, PermissionDenied, 5, 125, "registry forbids"},
	{ReasonRegistryUnavailable, 2006, Unavailable, 6, 125, "registry unavailable"},
	{ReasonTLS, 2007, Unavailable, 6, 125, "TLS failed or plain HTTP refused"},
	{ReasonBadAnswer, 2008, Unavailable, 6, 125, "bad answer of a registry"},
	{ReasonRateLimited, 2009, Unavailable, 6, 125, "rate limited by a registry"},
	{ReasonFeatureMissing, 2010, Unimplemented, 6, 126, "feature missing in a registry"},
	{ReasonCredentialHelper, 2011, Unauthenticated, 4, 125, "credential helper or file failed"},
	{ReasonNotAPlugin, 2012, InvalidArgument, 2, 125, "not a plugin package"},
	{ReasonAddressDenied, 2013, PermissionDenied, 5, 125, "address guard"},
	{ReasonRedirectDenied, 2013, PermissionDenied, 5, 125, "redirect refused"},
	{ReasonPushRefused, 2014, Unavailable, 6, 125, "push refused"},
	{ReasonBadLayout, 2015, DataLoss, 7, 125, "bad OCI layout or tar"},
	{ReasonDigestMismatch, 2101, DataLoss, 7, 125, "digest or size mismatch"},
	{ReasonNoSpace, 2102, ResourceExhausted, 1, 125, "disk full or over quota"},
	{ReasonReadOnly, 2102, FailedPrecondition, 1, 125, "store is read-only"},
	{ReasonCacheCorrupt, 2103, DataLoss, 7, 125, "cached blob corrupt"},
	{ReasonLockHeld, 2104, Aborted, 1, 125, "lock held too long"},
	{ReasonPluginNotFound, 3001, NotFound, 3, 127, "plugin not found"},
	{ReasonManifest, 3002, InvalidArgument, 2, 125, "bad plugin manifest"},
	{ReasonABIUnsupported, 3003, FailedPrecondition, 1, 126, "needs another host ABI"},
	{ReasonPlatformUnsupported, 3004, FailedPrecondition, 1, 126, "built for another platform"},
	{ReasonSignature, 3005, PermissionDenied, 5, 125, "bad signature"},
	{ReasonUnsigned, 3006, PermissionDenied, 5, 125, "unsigned"},
	{ReasonGrantMissing, 3007, PermissionDenied, 125, 125, "consent needed"},
	{ReasonPluginInactive, 3007, FailedPrecondition, 125, 125, "installed but waits for consent"},
	{ReasonLockDrift, 3008, PermissionDenied, 5, 125, "differs from the lock file"},
	{ReasonPluginModified, 3009, DataLoss, 7, 125, "installed files changed"},
	{ReasonNameAmbiguous, 3010, InvalidArgument, 2, 125, "name in several plugin indexes"},
	{ReasonNameTaken, 3011, InvalidArgument, 2, 125, "name reserved or taken"},
	{ReasonPolicyFile, 3012, PermissionDenied, 5, 125, "policy file refuses or is unsafe"},
	{ReasonDisabled, 3013, PermissionDenied, 5, 125, "plugin disabled"},
	{ReasonIndexExpired, 3014, DataLoss, 7, 125, "plugin index expired or rolled back"},
	{ReasonSignerChanged, 3015, PermissionDenied, 5, 125, "signer changed"},
	{ReasonDowngrade, 3016, PermissionDenied, 5, 125, "older than a version seen before"},
	{ReasonSignerUntrusted, 3017, PermissionDenied, 5, 125, "signer not trusted yet"},
	{ReasonVersionMoved, 3018, PermissionDenied, 5, 125, "version has other content now"},
	{ReasonPackageInvalid, 3019, DataLoss, 7, 125, "plugin package invalid"},
	{ReasonCapabilityDenied, 4001, PermissionDenied, 5, 125, "capability not granted"},
	{ReasonPolicyDenied, 4001, PermissionDenied, 5, 125, "refused by the policy file"},
	{ReasonCompletion, 4001, PermissionDenied, 5, 125, "not allowed while completing"},
	{ReasonTimeout, 4002, DeadlineExceeded, 6, 124, "deadline"},
	{ReasonStartFailed, 4003, FailedPrecondition, 1, 126, "plugin did not start"},
	{ReasonWASMTrap, 4004, Internal, 1, 125, "WASM trap"},
	{ReasonMemoryLimit, 4005, ResourceExhausted, 1, 125, "memory limit"},
	{ReasonCallDepth, 4006, ResourceExhausted, 1, 125, "call chain too deep"},
	{ReasonCallCycle, 4007, FailedPrecondition, 1, 126, "plugin calls itself"},
	{ReasonInterrupted, 4008, Cancelled, 130, 130, "interrupted"},
	{ReasonProtocol, 4009, Internal, 1, 125, "plugin broke the protocol"},
	{ReasonSandboxRequired, 4010, FailedPrecondition, 1, 125, "sandbox required but missing"},
	{ReasonModuleRefused, 4011, FailedPrecondition, 1, 126, "WASM module refused"},
	{ReasonQuota, 5001, ResourceExhausted, 1, 125, "quota exceeded"},
	{ReasonTooMany, 5001, ResourceExhausted, 1, 125, "too many at once"},
	{ReasonCredit, 5001, ResourceExhausted, 1, 125, "stream sent beyond its credit"},
	{ReasonRate, 5001, ResourceExhausted, 1, 125, "rate exceeded"},
	{ReasonStateConflict, 5002, Aborted, 1, 125, "revision conflict"},
	{ReasonUnknownMethod, 5003, Unimplemented, 1, 126, "unknown method"},
	{ReasonTooLarge, 5004, ResourceExhausted, 1, 125, "message or module too large"},
	{ReasonNATSUnavailable, 5005, Unavailable, 6, 125, "NATS unreachable"},
	{ReasonExists, 5006, AlreadyExists, 1, 125, "exists"},
	{ReasonKeyNotFound, 5007, NotFound, 3, 125, "no such key"},
	{ReasonNotCached, 5007, NotFound, 3, 125, "no such blob"},
	{ReasonGraphIncomplete, 5007, FailedPrecondition, 3, 125, "part of the graph is missing"},
	{ReasonRemoteCache, 5008, Unavailable, 6, 125, "remote cache unavailable (warning)"},
	{ReasonStateCorrupt, 5009, DataLoss, 7, 125, "state file damaged"},
	{ReasonInternal, 5999, Internal, 1, 125, "internal error"},
}

// Reasons is a copy of the table, ordered by Number.
func Reasons() []ReasonInfo { return append([]ReasonInfo(nil), reasons[:]...) }

// Info is the row of r; an unknown reason has the row of INTERNAL under its own name.
func (r Reason) Info() ReasonInfo {
	for i := range reasons {
		if reasons[i].Reason == r {
			return reasons[i]
		}
	}
	unknown := reasons[len(reasons)-1]
	unknown.Reason = r
	return unknown
}
