//! The modules of httpd that Ostler has built in, and what the others would be for.
//!
//! `LoadModule` and `<IfModule>` ask here. Nothing is ever loaded: a module is a part of the program or absent.

use super::model::Mpm;

/// Identifier and file name of each module whose directives (those that a proxy needs) are built in.
const BUILT_IN: &[(&str, &str)] = &[
    ("authz_core_module", "mod_authz_core.c"),
    ("authz_host_module", "mod_authz_host.c"),
    ("core_module", "core.c"),
    ("http_module", "http_core.c"),
    ("log_config_module", "mod_log_config.c"),
    ("logio_module", "mod_logio.c"),
    ("proxy_http_module", "mod_proxy_http.c"),
    ("proxy_module", "mod_proxy.c"),
    ("reqtimeout_module", "mod_reqtimeout.c"),
    ("so_module", "mod_so.c"),
    ("status_module", "mod_status.c"),
    ("unixd_module", "mod_unixd.c"),
    ("version_module", "mod_version.c"),
];

const MPMS: &[(&str, &str, Mpm)] = &[
    ("mpm_event_module", "event.c", Mpm::Event),
    ("mpm_worker_module", "worker.c", Mpm::Worker),
    ("mpm_prefork_module", "prefork.c", Mpm::Prefork),
];

/// What the modules that we lack are for, by the beginning of their identifier.
const ABSENT: &[(&str, &str)] = &[
    ("access_compat_", "Order, Allow and Deny"),
    ("actions_", "CGI"),
    ("alias_", "aliases and redirects"),
    ("allowmethods_", "choosing methods"),
    ("auth", "authentication"),
    ("autoindex_", "serving files"),
    ("brotli_", "compression"),
    ("buffer_", "buffering"),
    ("cache_", "caching"),
    ("cgi", "CGI"),
    ("dav_", "WebDAV"),
    ("deflate_", "compression"),
    ("dir_", "serving files"),
    ("env_", "environment variables of requests"),
    ("expires_", "setting fields"),
    ("ext_filter_", "filters"),
    ("fcgid_", "FastCGI"),
    ("file_cache_", "caching"),
    ("filter_", "filters"),
    ("gnutls_", "TLS"),
    ("headers_", "setting fields"),
    ("http2_", "HTTP/2"),
    ("include_", "server-side includes"),
    ("info_", "the server-info page"),
    ("lbmethod_", "balancing"),
    ("ldap_", "LDAP"),
    ("lua_", "Lua"),
    ("macro_", "macros"),
    ("md_", "certificates by ACME"),
    ("mime_", "serving files"),
    ("negotiation_", "serving files"),
    ("passenger_", "running applications"),
    ("perl_", "Perl"),
    ("php", "PHP"),
    ("proxy_ajp_", "AJP backends"),
    ("proxy_balancer_", "balancing"),
    ("proxy_connect_", "CONNECT"),
    ("proxy_express_", "mass proxying"),
    ("proxy_fcgi_", "FastCGI backends"),
    ("proxy_fdpass_", "passing descriptors"),
    ("proxy_ftp_", "FTP backends"),
    ("proxy_hcheck_", "health checks"),
    ("proxy_html_", "rewriting pages"),
    ("proxy_http2_", "HTTP/2 to backends"),
    ("proxy_scgi_", "SCGI backends"),
    ("proxy_uwsgi_", "uwsgi backends"),
    ("proxy_wstunnel_", "ws:// backends"),
    ("qos_", "rate limits"),
    ("ratelimit_", "rate limits"),
    ("remoteip_", "client addresses from a field or the PROXY protocol"),
    ("rewrite_", "rewriting"),
    ("security", "request inspection"),
    ("session_", "sessions"),
    ("setenvif_", "environment variables of requests"),
    ("slotmem_", "balancing"),
    ("socache_", "caching"),
    ("ssl_", "TLS"),
    ("substitute_", "rewriting pages"),
    ("tls_", "TLS"),
    ("unique_id_", "request identifiers"),
    ("userdir_", "serving files"),
    ("vhost_alias_", "serving files"),
    ("watchdog_", "health checks"),
    ("wsgi_", "Python applications"),
    ("xml2enc_", "rewriting pages"),
];

/// The MPM that a module's name means.
#[must_use]
pub fn mpm(name: &str) -> Option<Mpm> {
    MPMS.iter().find(|(id, file, _)| name == *id || name == *file).map(|&(_, _, mpm)| mpm)
}

/// Whether a module that is no MPM is a part of this program; both kinds of name are known.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(id, file)| name == *id || name == *file)
}

/// What a module that is not built in would be for.
#[must_use]
pub fn feature(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("mod_").unwrap_or(name);
    let name = name.strip_suffix(".c").map_or_else(|| name.to_owned(), |name| format!("{name}_module"));
    ABSENT.iter().find(|(start, _)| name.starts_with(start)).map(|&(_, feature)| feature)
}

/// Identifier and file name of every module that is built in, as `-M` and `-l` list them.
pub fn built_in() -> impl Iterator<Item = (&'static str, &'static str)> {
    BUILT_IN.iter().copied().chain(MPMS.iter().map(|&(id, file, _)| (id, file)))
}

/// Every name that is known, for suggestions.
pub fn names() -> impl Iterator<Item = &'static str> {
    built_in().flat_map(|(id, file)| [id, file])
}
