//! libvirt's C library behind the [`Hypervisor`] trait.
//!
//! One thread of the process runs libvirt's event loop (the library has one loop per process, not per connection). Calls
//! block, so each runs on tokio's blocking pool. A connection that breaks is opened again in the background; until then
//! every call answers [`Error::Unreachable`], and subscribers are told [`Event::Lost`] and, with every domain's true
//! state, [`Event::Resumed`].

mod abort;
mod convert;
mod ffi;
mod qmp;

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use virt::connect::Connect;
use virt::domain::{Domain as Guest, MigrateParameters};
use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::domain::{self, Domain};
use crate::hypervisor::{
    Capabilities, Endpoints, Error, Event, Found, Hypervisor, Migration, Progress, Result, Start, State, Statistics,
};

/// Seconds between two keepalive messages, and how many may stay unanswered: a daemon that hangs is found in 15 s. One each second,
/// because a call can wait for the next message: of two threads that call at once, libvirt 9.0's client may forget to wake the one that
/// sends for both. A migration, which is one long call that others are made beside, therefore has a connection of its own.
const KEEPALIVE: (i32, u32) = (1, 15);

/// Longest wait for an answer: libvirt itself gives up waiting for a busy guest after 30 s, and a guest of many gigabytes takes some
/// seconds to start.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Between two attempts to reach a daemon that is away. Its supervisor restarts it within a second.
const RECONNECT_EVERY: Duration = Duration::from_millis(100);

/// A client of one daemon. Cheap to clone; the connection closes with the last clone.
#[derive(Clone)]
pub struct Libvirt {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    uri: String,
    link: Mutex<Link>,
    audience: Mutex<Audience>,
    /// Woken when the connection closed.
    closed: Notify,
}

#[derive(Default)]
struct Audience {
    subscribers: Vec<mpsc::UnboundedSender<Event>>,
    /// What happened since the callbacks of a connection that opens were registered. It is told after the states that were found,
    /// so that what is told last is what happened last.
    early: Option<Vec<Event>>,
}

impl Audience {
    fn tell(&mut self, event: &Event) {
        self.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

/// The connection as it is now.
enum Link {
    Up(ffi::Session),
    Down(String),
}

impl Shared {
    /// Tells what happened; what happens while a connection opens is told once it is open.
    pub(crate) fn publish(&self, event: &Event) {
        let mut audience = self.audience.lock().expect("no code under this lock panics");
        match &mut audience.early {
            Some(early) => early.push(event.clone()),
            None => audience.tell(event),
        }
    }

    /// The connection is gone. Called from the event loop and by whoever finds out first; the second call is harmless.
    pub(crate) fn lost(&self, why: &str) {
        let mut link = self.link.lock().expect("no code under this lock panics");
        if let Link::Up(_) = &*link {
            let old = std::mem::replace(&mut *link, Link::Down(why.to_owned()));
            drop(link);
            // Closing calls back into the library, which may hold its own locks while it tells us.
            ffi::close_later(old.into_session());
            self.publish(&Event::Lost { why: why.to_owned() });
            self.closed.notify_one();
        }
    }

    fn connection(&self) -> Result<ffi::Hold> {
        match &*self.link.lock().expect("no code under this lock panics") {
            Link::Up(session) => Ok(ffi::Hold::on(session.connect())),
            Link::Down(why) => Err(Error::Unreachable(why.clone())),
        }
    }
}

impl Link {
    fn into_session(self) -> Option<ffi::Session> {
        match self {
            Self::Up(session) => Some(session),
            Self::Down(_) => None,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let link = self.link.get_mut().expect("no code under this lock panics");
        let old = std::mem::replace(link, Link::Down("this client was closed".to_owned()));
        ffi::close_later(old.into_session());
    }
}

impl Libvirt {
    /// A client of the session daemon that listens on `socket`. It is not necessary that it does so already; the client
    /// keeps trying in the background and answers [`Error::Unreachable`] until then. Needs a tokio runtime.
    pub fn new(socket: &str) -> Self {
        ffi::start_event_loop();
        let shared = Arc::new(Shared {
            uri: format!("qemu+unix:///session?socket={socket}"),
            link: Mutex::new(Link::Down("not connected yet".to_owned())),
            audience: Mutex::default(),
            closed: Notify::new(),
        });
        tokio::spawn(keep_connected(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Runs a blocking call on the connection. One that does not return is left to itself after [`ANSWERS_WITHIN`].
    fn call<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connect) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let shared = Arc::clone(&self.shared);
        let call = blocking(move || {
            let connection = shared.connection()?;
            let result = f(&connection);
            if result.is_err() && !connection.is_alive().unwrap_or(false) {
                // Whatever the library said, the reason is that there is nobody to ask.
                shared.lost(CLOSED_MEANWHILE);
                return Err(Error::Unreachable(CLOSED_MEANWHILE.to_owned()));
            }
            result
        });
        async move { tokio::time::timeout(ANSWERS_WITHIN, call).await.unwrap_or_else(|_| Err(slow())) }.boxed()
    }

    /// Runs a blocking call for as long as it takes, on a connection of its own.
    fn call_apart<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connect) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let shared = Arc::clone(&self.shared);
        async move {
            let opening = Arc::clone(&shared);
            let opened = blocking(move || {
                // A client that is known to be down says so at once, as it does to every other call.
                drop(opening.connection()?);
                connect(&opening.uri).map(ffi::Hold::new).map_err(Error::Unreachable)
            });
            // A connection that comes too late is closed, and nothing is begun on it that nobody waits for any more.
            let opened = tokio::time::timeout(ANSWERS_WITHIN, opened).await;
            let connection = opened.unwrap_or_else(|_| Err(slow()))?;
            blocking(move || {
                drop(shared.connection()?);
                let mut result = f(&connection);
                if result.is_err() && !connection.is_alive().unwrap_or(false) {
                    result = Err(Error::Unreachable(CLOSED_MEANWHILE.to_owned()));
                }
                // Whoever waits may have a guest to wake.
                connection.close_later();
                result
            })
            .await
        }
        .boxed()
    }

    fn on_domain<T: Send + 'static>(
        &self,
        name: &str,
        operation: &'static str,
        f: impl FnOnce(&Guest) -> std::result::Result<T, virt::error::Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let name = name.to_owned();
        self.call(move |connection| {
            let domain = lookup(connection, &name)?;
            f(&domain).map_err(|error| classify(&error, &name, operation))
        })
    }
}

fn slow() -> Error {
    Error::Unreachable(format!("the daemon did not answer within {} s", ANSWERS_WITHIN.as_secs()))
}

const CLOSED_MEANWHILE: &str = "the connection to the daemon closed during the call";

/// Runs what blocks where it keeps nobody waiting.
fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> BoxFuture<'static, Result<T>> {
    async move {
        let joined = tokio::task::spawn_blocking(f).await;
        joined.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
    .boxed()
}

/// Opens the connection whenever it is down, for as long as somebody holds the client.
async fn keep_connected(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let down = matches!(&*strong.link.lock().expect("no code under this lock panics"), Link::Down(_));
        if down {
            let attempt = Arc::clone(&strong);
            let opened = tokio::task::spawn_blocking(move || open(&attempt)).await;
            if let Ok(Err(why)) = opened
                && let Link::Down(text) = &mut *strong.link.lock().expect("no code under this lock panics")
            {
                *text = why;
            }
            drop(strong);
            tokio::time::sleep(RECONNECT_EVERY).await;
        } else {
            // Wake up now and then without a reason, so that a client nobody holds is let go.
            let closed = async { strong.closed.notified().await };
            let _ = tokio::time::timeout(RECONNECT_EVERY, closed).await;
        }
    }
}

fn connect(uri: &str) -> std::result::Result<Connect, String> {
    let connection = Connect::open(Some(uri)).map_err(|error| error.message().to_owned())?;
    if let Err(error) = connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1) {
        ffi::close(connection);
        return Err(error.message().to_owned());
    }
    Ok(connection)
}

fn open(shared: &Arc<Shared>) -> std::result::Result<(), String> {
    let connection = connect(&shared.uri)?;
    // Callbacks first, the listing second: what happens in between is told twice rather than never.
    let audience = || shared.audience.lock().expect("no code under this lock panics");
    audience().early = Some(Vec::new());
    let opened = ffi::Session::new(connection, shared).and_then(|session| match list(session.connect()) {
        Ok(domains) => Ok((session, domains)),
        Err(error) => {
            ffi::close_later(Some(session));
            Err(error.to_string())
        }
    });
    let (session, domains) = match opened {
        Ok(opened) => opened,
        Err(why) => {
            audience().early = None;
            return Err(why);
        }
    };
    *shared.link.lock().expect("no code under this lock panics") = Link::Up(session);
    {
        let mut audience = audience();
        audience.tell(&Event::Resumed { domains });
        for event in audience.early.take().unwrap_or_default() {
            audience.tell(&event);
        }
    }
    // One that closed before it was up told nobody.
    let is_alive = shared.connection().is_ok_and(|connection| connection.is_alive().unwrap_or(false));
    if !is_alive {
        shared.lost("the connection closed as soon as it was open");
    }
    Ok(())
}

fn lookup(connection: &Connect, name: &str) -> Result<Guest> {
    Guest::lookup_by_name(connection, name).map_err(|error| classify(&error, name, "find"))
}

fn list(connection: &Connect) -> Result<Vec<Found>> {
    let failed = |error: virt::error::Error| classify(&error, "*", "list");
    let mut found = Vec::new();
    for domain in connection.list_all_domains(0).map_err(failed)? {
        let Ok(name) = domain.get_name() else { continue };
        match domain.get_state() {
            Ok((state, reason)) => found.push(Found { name, state: convert::state(state, reason) }),
            // It ended between the listing and the question.
            Err(error) if error.code() == ErrorNumber::NoDomain => {}
            Err(error) => return Err(failed(error)),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn classify(error: &virt::error::Error, name: &str, operation: &'static str) -> Error {
    let (name, why) = (name.to_owned(), error.message().to_owned());
    match error.code() {
        ErrorNumber::NoDomain => Error::NotFound(name),
        ErrorNumber::OperationInvalid => Error::WrongState { name, operation, why },
        ErrorNumber::OperationAborted => Error::Aborted(name),
        _ => Error::Failed { name, operation, why },
    }
}

impl Hypervisor for Libvirt {
    fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities>> {
        self.call(|connection| {
            let failed = |error: virt::error::Error| classify(&error, "*", "ask about");
            let xml = connection.get_capabilities().map_err(failed)?;
            let libvirt = connection.get_lib_version().map_err(failed)?;
            let qemu = connection.get_hyp_version().map_err(failed)?;
            Ok(convert::capabilities(&xml, libvirt, qemu))
        })
    }

    fn define<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<()>> {
        let (xml, name) = (domain::write(domain), domain.name.clone());
        self.call(move |connection| {
            let flags = sys::VIR_DOMAIN_DEFINE_VALIDATE;
            Guest::define_xml_flags(connection, &xml, flags).map_err(|error| classify(&error, &name, "define"))?;
            Ok(())
        })
    }

    fn undefine<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.on_domain(name, "undefine", |domain| domain.undefine_flags(0))
    }

    fn start<'a>(&'a self, name: &'a str, how: Start) -> BoxFuture<'a, Result<()>> {
        let flags = if how.paused { sys::VIR_DOMAIN_START_PAUSED } else { 0 };
        self.on_domain(name, "start", move |domain| domain.create_with_flags(flags).map(drop))
    }

    fn pause<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.on_state(name, "pause", |state| matches!(state, State::Running), |domain| domain.suspend().map(drop))
    }

    fn resume<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.on_state(name, "resume", |state| matches!(state, State::Paused(_)), |domain| domain.resume().map(drop))
    }

    fn shutdown<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.on_state(
            name,
            "shut down",
            |state| state.runs(),
            // Not through the agent: libvirt would wait for one that may not be there.
            |domain| domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN).map(drop),
        )
    }

    fn destroy<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.on_domain(name, "destroy", |domain| domain.destroy())
    }

    fn state<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<State>> {
        self.on_domain(name, "ask about", |domain| {
            let (state, reason) = domain.get_state()?;
            Ok(convert::state(state, reason))
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>>> {
        self.call(list)
    }

    fn describe<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Domain>> {
        let described = self.on_domain(name, "describe", |domain| domain.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE));
        async move {
            let xml = described.await?;
            domain::read(&xml).map_err(|error| Error::Unreadable { name: name.to_owned(), why: error.to_string() })
        }
        .boxed()
    }

    fn statistics<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Statistics>> {
        self.on_domain(name, "ask about", |domain| {
            let info = domain.get_info()?;
            Ok(Statistics {
                cpu_time: Duration::from_nanos(info.cpu_time),
                memory_kib: info.max_mem,
                vcpus: info.nr_virt_cpu,
            })
        })
    }

    fn endpoints<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Endpoints>> {
        async move { Ok(self.describe(name).await?.endpoints()) }.boxed()
    }

    fn migrate<'a>(&'a self, name: &'a str, how: &'a Migration) -> BoxFuture<'a, Result<()>> {
        let Migration { peer, memory, disks_socket, copy_disks, bandwidth, max_downtime, auto_converge } = how.clone();
        let mut flags = sys::VIR_MIGRATE_LIVE
            | sys::VIR_MIGRATE_PEER2PEER
            | sys::VIR_MIGRATE_PERSIST_DEST
            | sys::VIR_MIGRATE_PAUSED;
        if !copy_disks.is_empty() {
            flags |= sys::VIR_MIGRATE_NON_SHARED_INC;
        }
        if auto_converge {
            flags |= sys::VIR_MIGRATE_AUTO_CONVERGE;
        }
        let parameters = MigrateParameters {
            uri: Some(format!("unix://{memory}")),
            disks_uri: (!copy_disks.is_empty()).then(|| format!("unix://{disks_socket}")),
            migrate_disks: copy_disks,
            bandwidth,
            ..MigrateParameters::default()
        };
        let peer = format!("qemu+unix:///session?socket={peer}");
        let guest = name.to_owned();
        let migrating = self.call_apart(move |connection| {
            let domain = lookup(connection, &guest)?;
            let failed = |error: virt::error::Error| classify(&error, &guest, "migrate");
            if let Some(downtime) = max_downtime {
                // Kept in QEMU from before the migration begins; libvirt accepts it on an idle guest.
                domain.migrate_set_max_downtime(downtime.as_millis() as u64, 0).map_err(failed)?;
            }
            domain.migrate_to_uri3(Some(&peer), parameters, flags).map_err(failed)
        });
        // Started now rather than at the first poll, and not stopped when the caller loses interest.
        let running = Handle::current().spawn(migrating);
        async move { running.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string()))) }.boxed()
    }

    fn progress<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>> {
        self.on_domain(name, "ask about", |domain| {
            let (kind, statistics) = match ffi::job(domain, 0) {
                Ok(job) => job,
                // A guest that stopped has no job.
                Err(error) if error.code() == ErrorNumber::OperationInvalid => return Ok(None),
                // One that arrives has a job whose figures the source has.
                Err(error) if error.code() == ErrorNumber::OperationUnsupported => {
                    return Ok(Some(Progress::default()));
                }
                Err(error) => return Err(error),
            };
            Ok((kind != sys::VIR_DOMAIN_JOB_NONE).then(|| convert::progress(&statistics)))
        })
    }

    fn completed<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Progress>>> {
        self.on_domain(name, "ask about", |domain| {
            let flags = sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED;
            let (kind, statistics) = ffi::job(domain, flags)?;
            Ok((kind == sys::VIR_DOMAIN_JOB_COMPLETED).then(|| convert::progress(&statistics)))
        })
    }

    fn set_max_downtime<'a>(&'a self, name: &'a str, downtime: Duration) -> BoxFuture<'a, Result<()>> {
        let milliseconds = downtime.as_millis() as u64;
        self.on_domain(name, "set the downtime of", move |domain| {
            domain.migrate_set_max_downtime(milliseconds, 0).map(drop)
        })
    }

    fn reclaim_disks<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        const OPERATION: &str = "take back the disks of";
        // libvirt's pause and resume would do as well, but the guest would stand still in between, for good if whoever asks ends there.
        // One that somebody paused stays so, and takes its disks back when it is resumed.
        let told =
            self.on_state(name, OPERATION, |state| state == State::Running, |guest| qmp::tell(guest, qmp::GO_ON));
        async move {
            let failed = |why| Error::Failed { name: name.to_owned(), operation: OPERATION, why };
            qmp::refusal(&told.await?).map_or(Ok(()), |why| Err(failed(why)))
        }
        .boxed()
    }

    fn abort<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        abort::abort(self, name).boxed()
    }

    fn events(&self) -> mpsc::UnboundedReceiver<Event> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.shared.audience.lock().expect("no code under this lock panics").subscribers.push(sender);
        receiver
    }
}

impl Libvirt {
    /// For operations that libvirt takes for done, or answers in its own way, when the guest is in the state already.
    fn on_state<T: Send + 'static>(
        &self,
        name: &str,
        operation: &'static str,
        allowed: fn(State) -> bool,
        f: fn(&Guest) -> std::result::Result<T, virt::error::Error>,
    ) -> BoxFuture<'static, Result<T>> {
        let name = name.to_owned();
        self.call(move |connection| {
            let domain = lookup(connection, &name)?;
            let failed = |error: virt::error::Error| classify(&error, &name, operation);
            let (state, reason) = domain.get_state().map_err(failed)?;
            let state = convert::state(state, reason);
            if !allowed(state) {
                return Err(Error::WrongState { name, operation, why: format!("it is {state}") });
            }
            f(&domain).map_err(failed)
        })
    }
}
