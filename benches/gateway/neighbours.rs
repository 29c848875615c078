//! The neighbours from Debian: what they are told to do, each as well as it can.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::support::browser::Browser;
use crate::support::certificates::Certificate;
use crate::support::issuer::{CLIENT_ID, CLIENT_SECRET};

/// What each needs of Debian, and where that is then.
const PACKAGES: [(&str, &str); 4] = [
    ("nginx", "/usr/sbin/nginx"),
    ("haproxy", "/usr/sbin/haproxy"),
    ("apache2", "/usr/sbin/apache2"),
    ("libapache2-mod-auth-openidc", "/usr/lib/apache2/modules/mod_auth_openidc.so"),
];

/// The cookie of a session with Apache.
const APACHE_COOKIE: &str = "mod_auth_openidc_session";

/// The origin of the app behind Apache, which is not told that it stands behind TLS.
const APACHE_ORIGIN: &str = "http://shop.test";

/// Installs what is missing, as root on Debian; stops with the names of the packages otherwise.
pub fn install() {
    let missing = PACKAGES.iter().filter(|(_, file)| !Path::new(file).exists());
    let missing: Vec<&str> = missing.map(|(package, _)| *package).collect();
    if !missing.is_empty() {
        let status = Command::new("tests/install-packages").args(missing).status().expect("bash");
        assert!(status.success(), "the neighbours are needed");
    }
}

/// One worker, a log that is written in large pieces, and connections to the upstream that are kept.
pub fn nginx(folder: &Path, address: SocketAddr, upstream: SocketAddr, tls: Option<&Certificate>) -> String {
    let folder = folder.display();
    let (listen, tls) = match tls {
        None => (String::new(), String::new()),
        Some(Certificate { certificate, key }) => (
            " ssl http2".to_owned(),
            format!("ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display()),
        ),
    };
    format!(
        "user root; daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        events {{ worker_connections 16384; }}
        http {{
            access_log {folder}/access.log combined buffer=64k flush=1s;
            client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
            uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
            keepalive_requests 1000000000; keepalive_timeout 1h; tcp_nodelay on;
            upstream api {{ server {upstream}; keepalive 128; keepalive_requests 1000000000; }}
            server {{
                listen {address}{listen} backlog=4096; {tls}
                location / {{
                    proxy_pass http://api;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Host $host;
                }}
            }}
        }}\n"
    )
}

pub fn haproxy(address: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 1000\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend shop\n  bind {address}\n  default_backend api\n\
         backend api\n  http-reuse always\n  server upstream {upstream}\n"
    )
}

/// One process with a thread for each connection, sessions in Redis, and the access token passed on as the
/// gateway does.
pub fn apache(folder: &Path, address: SocketAddr, upstream: SocketAddr, issuer: &str, redis: u16) -> String {
    let mut text = String::new();
    let modules = [
        "mpm_event",
        "authn_core",
        "authz_core",
        "authz_user",
        "headers",
        "proxy",
        "proxy_http",
        "auth_openidc",
    ];
    for module in modules {
        writeln!(text, "LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so").unwrap();
    }
    if rustix::process::geteuid().is_root() {
        text += "User www-data\nGroup www-data\n";
    }
    let folder = folder.display();
    text + &format!(
        "ServerRoot {folder}\nDefaultRuntimeDir {folder}\nPidFile {folder}/pid\nServerName shop.test\n\
         Listen {address}\nErrorLog {folder}/error.log\nLogLevel error\n\
         LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O \\\"%{{Referer}}i\\\" \\\"%{{User-Agent}}i\\\"\" combined\n\
         CustomLog {folder}/access.log combined\nBufferedLogs On\n\
         StartServers 1\nServerLimit 1\nThreadLimit 128\nThreadsPerChild 128\nMaxRequestWorkers 128\n\
         MinSpareThreads 1\nMaxSpareThreads 128\nMaxConnectionsPerChild 0\n\
         KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 300\n\
         OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration\n\
         OIDCClientID \"{CLIENT_ID}\"\nOIDCClientSecret \"{CLIENT_SECRET}\"\n\
         OIDCProviderTokenEndpointAuth client_secret_post\nOIDCPKCEMethod S256\n\
         OIDCScope \"openid profile offline_access\"\nOIDCRedirectURI {APACHE_ORIGIN}/oidc/callback\n\
         OIDCCryptoPassphrase of-this-run-alone\nOIDCCacheType redis\nOIDCRedisCacheServer 127.0.0.1:{redis}\n\
         OIDCSessionInactivityTimeout 43200\nOIDCSessionMaxDuration 43200\nOIDCStripCookies {APACHE_COOKIE}\n\
         OIDCPassClaimsAs environment\n\
         <Location />\n  AuthType openid-connect\n  Require valid-user\n  \
         RequestHeader set Authorization \"Bearer %{{OIDC_access_token}}e\"\n  \
         ProxyPass http://{upstream}/ keepalive=On\n</Location>\n"
    )
}

/// Logs in for real, as a browser does, and gives the cookie.
pub async fn log_in_to_apache(address: SocketAddr) -> String {
    let mut browser = Browser::at(APACHE_ORIGIN, address);
    let answer = browser.navigate("/api/orders").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    format!("{APACHE_COOKIE}={}", browser.cookie(APACHE_COOKIE).expect("a session"))
}
