//! The flags about a proxy in front, and what they make of the ports.

use std::num::NonZeroU16;

use clap::Args;

use crate::cli::flags::{DaemonArgs, step_port};
use crate::config::{Behind, StepPorts, Trusted};

/// Above them in the help.
const PROXY: &str = "Behind a proxy (see docs/proxy.md)";

/// The ports of the two steps where nothing is said.
pub(super) const USUAL: (NonZeroU16, NonZeroU16) = (port(8080), port(8443));

const fn port(number: u16) -> NonZeroU16 {
    match NonZeroU16::new(number) {
        Some(port) => port,
        None => NonZeroU16::MIN,
    }
}

/// The flags about a proxy in front.
#[derive(Args, Clone, Debug, Default)]
pub struct ProxyArgs {
    /// Port of the proxy for step 1, which clients use; --http-port is then behind it
    #[arg(long, help_heading = PROXY, value_name = "PORT", value_parser = step_port, requires = "waf_https_port")]
    pub waf_http_port: Option<NonZeroU16>,

    /// Port of the proxy for step 2, which clients use; --https-port is then behind it
    #[arg(long, help_heading = PROXY, value_name = "PORT", value_parser = step_port, requires = "waf_http_port")]
    pub waf_https_port: Option<NonZeroU16>,

    /// Addresses and networks that the proxy speaks from: nobody else reaches --http-port and --https-port, and who the
    /// client is is believed to nobody else [default: 127.0.0.1,::1]
    #[arg(long, help_heading = PROXY, value_name = "ADDR,...", requires = "waf_http_port")]
    pub waf_trusted_ips: Option<Trusted>,
}

/// Where the two steps are, as the command line says.
#[derive(Clone, Debug)]
pub struct Steps {
    /// The ports clients use.
    pub ports: StepPorts,
    /// The proxy in front, if there is one.
    pub behind: Option<Behind>,
}

impl DaemonArgs {
    /// The ports of the two steps that clients use: those of a proxy in front, if there is one.
    #[must_use]
    pub fn public_ports(&self) -> (NonZeroU16, NonZeroU16) {
        let proxy = &self.proxy;
        proxy.waf_http_port.zip(proxy.waf_https_port).unwrap_or(self.own_ports())
    }

    /// The ports that the daemon itself has.
    fn own_ports(&self) -> (NonZeroU16, NonZeroU16) {
        (self.own_http_port.unwrap_or(USUAL.0), self.own_https_port.unwrap_or(USUAL.1))
    }

    /// Whether a port of a step is said, be it the usual one.
    #[must_use]
    pub fn says_ports(&self) -> bool {
        [self.own_http_port, self.own_https_port, self.proxy.waf_http_port].iter().any(Option::is_some)
    }

    /// Where the two steps are.
    #[must_use]
    pub fn steps(&self) -> Steps {
        let own = self.own_ports();
        let behind = self.proxy.waf_http_port.zip(self.proxy.waf_https_port).map(|_| Behind {
            http: own.0,
            https: own.1,
            trusted: self.proxy.waf_trusted_ips.clone().unwrap_or_else(Trusted::loopback),
        });
        Steps::new(self.public_ports(), behind)
    }
}

impl Steps {
    /// Those of these ports, which clients use.
    #[must_use]
    pub fn new((http, https): (NonZeroU16, NonZeroU16), behind: Option<Behind>) -> Self {
        Self { ports: StepPorts { http: http.get(), https: https.get() }, behind }
    }
}
