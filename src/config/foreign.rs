//! Directives of httpd that Ostler does not have, and what to say about them.
//!
//! They are faults like any unknown word, but whoever brings a configuration along should hear why, and what
//! serves instead.

/// Names (a star at the end stands for any rest; sections like directives) and the sentence for them.
const FOREIGN: &[(&[&str], &str)] = &[
    (
        &[
            "AccessFileName", "AddCharset", "AddDefaultCharset", "AddEncoding", "AddIcon*", "AddLanguage",
            "AddType", "AllowOverride*", "CheckSpelling", "ContentDigest", "DefaultIcon", "DefaultLanguage",
            "DefaultType", "Directory*", "DocumentRoot", "EnableMMAP", "EnableSendfile", "FallbackResource",
            "FileETag", "Files*", "ForceType", "HeaderName", "Index*", "LanguagePriority", "MMapFile", "Mime*",
            "MultiViewsMatch", "Options", "ReadmeName", "TypesConfig", "UserDir", "VirtualDocumentRoot*",
            "VirtualScriptAlias*",
        ],
        "serving files is not what Ostler does; ProxyPass hands requests to a server that does",
    ),
    (&["Redirect*", "Alias*"], "aliases and redirects are not built yet; ProxyPass maps paths to backends"),
    (&["SSL*", "TLS*", "NSS*"], "TLS is not built in yet"),
    (&["MD*"], "certificates by ACME are not built yet"),
    (&["Rewrite*"], "rewriting is not built yet; ProxyPass and <LocationMatch> do without it"),
    (&["Header", "RequestHeader", "Expires*"], "setting fields is not built yet"),
    (
        &["Order", "Allow", "Deny", "Satisfy"],
        "these are httpd 2.2's; in <Location>, \"Require all granted\", \"Require local\" or \"Require ip\" serves instead",
    ),
    (&["RequireAll", "RequireAny", "RequireNone"], "combining Require lines is not built yet; of several, any will do"),
    (&["Auth*", "Anonymous*", "Limit", "LimitExcept", "LDAP*", "Session*"], "authentication is not built yet"),
    (&["Balancer*"], "balancing is not built yet; a ProxyPass names one backend"),
    (&["ProxyPassMatch", "ProxyMatch", "ProxyPassInterpolateEnv", "ProxyPassInherit"], "this way of mapping paths is not built yet; ProxyPass serves for plain prefixes"),
    (&["ProxyPassReverseCookie*"], "rewriting cookies is not built yet"),
    (&["ProxyHC*"], "health checks are not built yet"),
    (
        &["ProxyRemote*", "ProxyBlock", "NoProxy", "ProxyDomain", "AllowCONNECT", "ProxySourceAddress", "ProxyFtp*"],
        "this is for a forward proxy, which Ostler is not",
    ),
    (&["ProxyHTML*", "ProxyExpress*", "ProxySCGI*", "ProxyFCGI*", "ProxyAJP*", "ProxyWebsocket*", "ProxyErrorOverride", "ProxyBadHeader", "ProxyIOBufferSize", "ProxyReceiveBufferSize", "ProxyMaxForwards", "ProxyStatus"], "this part of proxying is not built yet"),
    (&["RemoteIP*"], "client addresses from a field or the PROXY protocol are not built yet"),
    (&["H2*", "Protocols*", "ProxyHTTP2*"], "HTTP/2 is not built yet"),
    (&["Cache*", "HTCacheClean"], "caching is not built yet"),
    (&["Deflate*", "Brotli*", "AddOutputFilter*", "AddInputFilter*", "SetOutputFilter", "SetInputFilter", "Filter*", "ExtFilter*", "Substitute*", "BufferSize"], "filters and compression are not built yet"),
    (&["ErrorDocument"], "error pages of your own are not built yet"),
    (&["SetEnv*", "PassEnv", "UnsetEnv", "BrowserMatch*"], "environment variables of requests are not built yet"),
    (&["CGI*", "Script*", "Action", "AddHandler", "RemoveHandler", "Fcgid*", "Suexec*", "WSGI*", "Perl*", "PHP*", "php_*", "Passenger*", "Rails*", "Lua*", "XBitHack", "SSI*"], "running programs is not what Ostler does; ProxyPass hands requests to a server that does"),
    (&["LogIOTrackTTFB", "ErrorLogFormat", "BufferedLogs", "CookieLog", "GlobalLog", "Forensic*", "DumpIO*", "CustomErrorLog*", "LogMessage"], "this kind of log is not built yet; CustomLog and ErrorLog are"),
    (&["If", "Else", "ElseIf"], "expressions are not built; <Location> and <LocationMatch> choose by path"),
    (&["Use", "Macro", "UndefMacro"], "macros are not built yet; Define and Include do without them"),
    (&["Sec*", "QS*", "QOS*", "Evasive*", "DOS*"], "inspecting and rating requests is not built yet"),
    (&["LoadFile", "AddModule", "ClearModuleList"], "no library is loaded into Ostler"),
    (&["Port", "BindAddress", "ServerType"], "this is httpd 1.3's; Listen serves instead"),
    (&["TraceEnable", "HttpProtocolOptions", "LimitInternalRecursion", "LimitXMLRequestBody", "MaxRange*", "AcceptPathInfo", "AllowEncodedSlashes", "RegisterHttpMethod", "MergeSlashes", "StrictHostCheck", "UnsafeRaw*", "QualifyRedirectURL", "UseCanonicalPhysicalPort", "ServerPath", "MergeTrailers", "FlushMaxPipelined", "FlushMaxThreshold", "ReadBufferSize", "RegexDefaultOptions"], "this setting is not built; requests are read strictly by RFC 9110 and 9112"),
    (&["RLimit*", "ChrootDir", "GprofDir"], "this limit is the service manager's to set"),
    (&["Mod_*", "Dav*", "Modify*", "Rate*", "Heartbeat*", "HeartBeat*", "Watchdog*", "Example*", "Dialup*", "Charset*", "Meta*", "Asis*", "ImapMap*", "IdentityCheck*", "DTrace*", "DBD*"], "this part of httpd is not built"),
];

/// The sentence for a directive or section of httpd that is not ours.
#[must_use]
pub fn sentence(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let fits = |pattern: &&str| {
        let pattern = pattern.to_ascii_lowercase();
        pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start))
    };
    FOREIGN.iter().find(|(names, _)| names.iter().any(|pattern| fits(&pattern))).map(|&(_, sentence)| sentence)
}
