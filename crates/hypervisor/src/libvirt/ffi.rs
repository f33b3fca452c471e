//! What the `virt` crate does not cover: the event loop's thread, domain events, the close callback, aborting a job. The
//! only unsafe code of the workspace.
#![allow(unsafe_code, reason = "the C library has to be called; each block says why it is sound")]

use std::ffi::{CStr, c_int, c_void};
use std::sync::{Arc, Once, Weak};

use virt::connect::Connect;
use virt::domain::{Domain, JobStats};
use virt_sys as sys;

use super::{Shared, convert};
use crate::hypervisor::Event;

/// Starts the thread that runs libvirt's event loop, once per process.
pub(super) fn start_event_loop() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().expect("registering the event loop needs only memory");
        std::thread::Builder::new()
            .name("libvirt-events".to_owned())
            .spawn(|| {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        eprintln!("libvirt's event loop: {}", error.message());
                    }
                }
            })
            .expect("a process can start a thread");
    });
}

/// An open connection with its callbacks.
pub(super) struct Session {
    connect: Connect,
    callbacks: Vec<c_int>,
}

impl Session {
    /// Subscribes to everything that [`Event`] can say.
    pub(super) fn new(connect: Connect, shared: &Arc<Shared>) -> Result<Self, String> {
        let mut session = Self { connect, callbacks: Vec::new() };
        match session.register(shared) {
            Ok(()) => Ok(session),
            Err(why) => {
                close_later(Some(session));
                Err(why)
            }
        }
    }

    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    fn register(&mut self, shared: &Arc<Shared>) -> Result<(), String> {
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        // SAFETY: libvirt takes every domain callback as the generic type and calls it with the arguments that belong to
        // the event's number; each function below has exactly the signature documented for its number.
        let callbacks: [(u32, Generic); 4] = unsafe {
            [
                (
                    sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                    std::mem::transmute::<LifecycleCallback, Generic>(on_lifecycle as LifecycleCallback),
                ),
                (
                    sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
                    std::mem::transmute::<IterationCallback, Generic>(on_iteration as IterationCallback),
                ),
                (
                    sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                    std::mem::transmute::<JobCallback, Generic>(on_job_completed as JobCallback),
                ),
                (
                    sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
                    std::mem::transmute::<AgentCallback, Generic>(on_agent as AgentCallback),
                ),
            ]
        };
        for (id, callback) in callbacks {
            let opaque = Weak::into_raw(Arc::downgrade(shared)).cast_mut().cast::<c_void>();
            // SAFETY: the connection is open; a null domain means all domains; `opaque` is a weak pointer that
            // `release` gives back exactly once, when libvirt drops the callback or here when it refuses it.
            let registered = unsafe {
                sys::virConnectDomainEventRegisterAny(
                    self.connect.as_ptr(),
                    std::ptr::null_mut(),
                    id as c_int,
                    Some(callback),
                    opaque,
                    Some(release),
                )
            };
            if registered < 0 {
                // SAFETY: libvirt did not take the pointer.
                unsafe { release(opaque) };
                return Err(virt::error::Error::last_error().message().to_owned());
            }
            self.callbacks.push(registered);
        }
        let opaque = Weak::into_raw(Arc::downgrade(shared)).cast_mut().cast::<c_void>();
        // SAFETY: as above.
        let registered = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(on_close), opaque, Some(release))
        };
        if registered < 0 {
            // SAFETY: libvirt did not take the pointer.
            unsafe { release(opaque) };
            return Err(virt::error::Error::last_error().message().to_owned());
        }
        Ok(())
    }

    fn close(self) {
        let Self { connect, callbacks } = self;
        for callback in callbacks {
            // SAFETY: the connection object lives until it is closed below, also when the daemon is gone; the numbers
            // are those that libvirt gave out for it.
            unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), callback) };
        }
        // SAFETY: as above; the callback is the one that was registered.
        unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) };
        close(connect);
    }
}

/// One user's hold on a connection, given back when dropped. The `virt` crate counts clones but never releases them.
pub(super) struct Hold(Option<Connect>);

impl Hold {
    /// The only hold on a connection: it closes with it.
    pub(super) fn new(connect: Connect) -> Self {
        Self(Some(connect))
    }

    /// Gives it back on a thread of its own: closing asks the daemon once more.
    pub(super) fn close_later(self) {
        let _ = std::thread::Builder::new().name("libvirt-close".to_owned()).spawn(move || drop(self));
    }

    pub(super) fn on(connect: &Connect) -> Self {
        Self(Some(connect.clone()))
    }
}

impl std::ops::Deref for Hold {
    type Target = Connect;

    fn deref(&self) -> &Connect {
        self.0.as_ref().expect("it is only taken in drop")
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(connect) = self.0.take() {
            close(connect);
        }
    }
}

/// Gives a connection back. The `virt` crate does not do so by itself.
pub(super) fn close(mut connect: Connect) {
    // An error means that it is closed already.
    let _ = connect.close();
}

/// Closes on a thread of its own: closing waits for the event loop, which may be the caller.
pub(super) fn close_later(session: Option<Session>) {
    if let Some(session) = session {
        let _ = std::thread::Builder::new().name("libvirt-close".to_owned()).spawn(move || session.close());
    }
}

/// The kind of a guest's job, and its statistics. Not the `virt` crate's function of this purpose: when there are no
/// statistics it makes a vector of a null pointer.
pub(super) fn job(domain: &Domain, flags: u32) -> Result<(u32, JobStats), virt::error::Error> {
    let (mut kind, mut params, mut count) = (0, std::ptr::null_mut(), 0);
    // SAFETY: the domain handle is alive for the call, and all three results outlive it.
    let result =
        unsafe { sys::virDomainGetJobStats(domain.as_ptr(), &raw mut kind, &raw mut params, &raw mut count, flags) };
    if result < 0 {
        return Err(virt::error::Error::last_error());
    }
    // SAFETY: libvirt allocated `count` entries, which are read here and freed once; it takes null for no entries.
    let statistics = unsafe {
        let statistics = job_statistics(params, count);
        sys::virTypedParamsFree(params, count);
        statistics
    };
    Ok((u32::try_from(kind).unwrap_or(0), statistics))
}

/// # Safety
/// `params` has `count` entries, or is null with a count of zero.
unsafe fn job_statistics(params: sys::virTypedParameterPtr, count: c_int) -> JobStats {
    let large = |field: &CStr| {
        let mut value = 0;
        // SAFETY: the caller's promise; the name ends with a zero byte, `value` outlives the call.
        let found = unsafe { sys::virTypedParamsGetULLong(params, count, field.as_ptr(), &raw mut value) };
        (found == 1).then_some(value)
    };
    let small = |field: &CStr| {
        let mut value = 0;
        // SAFETY: as above.
        let found = unsafe { sys::virTypedParamsGetInt(params, count, field.as_ptr(), &raw mut value) };
        (found == 1).then_some(value)
    };
    JobStats {
        time_elapsed: large(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        downtime: large(sys::VIR_DOMAIN_JOB_DOWNTIME),
        data_total: large(sys::VIR_DOMAIN_JOB_DATA_TOTAL),
        data_processed: large(sys::VIR_DOMAIN_JOB_DATA_PROCESSED),
        data_remaining: large(sys::VIR_DOMAIN_JOB_DATA_REMAINING),
        mem_remaining: large(sys::VIR_DOMAIN_JOB_MEMORY_REMAINING),
        disk_remaining: large(sys::VIR_DOMAIN_JOB_DISK_REMAINING),
        mem_iteration: large(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
        mem_dirty_rate: large(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE),
        auto_converge_throttle: small(sys::VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE),
        ..JobStats::default()
    }
}

pub(super) fn abort_job(domain: &Domain) -> Result<(), virt::error::Error> {
    // SAFETY: the domain handle is alive for the call.
    let result = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if result < 0 { Err(virt::error::Error::last_error()) } else { Ok(()) }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type IterationCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);
type JobCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, sys::virTypedParameterPtr, c_int, *mut c_void);
type AgentCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);

/// # Safety
/// `opaque` comes from `Weak::into_raw` and is used up by this call.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Weak::<Shared>::from_raw(opaque.cast_const().cast()) });
}

/// The client behind a callback, if it still exists.
///
/// # Safety
/// `opaque` comes from `Weak::into_raw` and `release` has not been called on it.
unsafe fn client(opaque: *mut c_void) -> Option<Arc<Shared>> {
    // SAFETY: the caller's promise; `ManuallyDrop` leaves the pointer to libvirt.
    let weak = std::mem::ManuallyDrop::new(unsafe { Weak::<Shared>::from_raw(opaque.cast_const().cast()) });
    weak.upgrade()
}

/// # Safety
/// `domain` is a domain handle that lives for the call.
unsafe fn name_of(domain: sys::virDomainPtr) -> Option<String> {
    // SAFETY: the caller's promise; the name belongs to the handle and is copied at once.
    let name = unsafe { sys::virDomainGetName(domain) };
    if name.is_null() {
        return None;
    }
    // SAFETY: libvirt's names end with a zero byte.
    unsafe { CStr::from_ptr(name) }.to_str().ok().map(str::to_owned)
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt hands over what was registered and a handle that lives for the call.
    let (client, name) = unsafe { (client(opaque), name_of(domain)) };
    if let (Some(client), Some(name), Some(change)) = (client, name, convert::change(event, detail)) {
        client.publish(&Event::Domain { name, change });
    }
    0
}

unsafe extern "C" fn on_iteration(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    iteration: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt hands over what was registered and a handle that lives for the call.
    let (client, name) = unsafe { (client(opaque), name_of(domain)) };
    if let (Some(client), Some(name)) = (client, name) {
        client.publish(&Event::Iteration { name, number: u32::try_from(iteration).unwrap_or(0) });
    }
}

unsafe extern "C" fn on_job_completed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt hands over what was registered and a handle that lives for the call.
    let (client, name) = unsafe { (client(opaque), name_of(domain)) };
    if let (Some(client), Some(name)) = (client, name) {
        // SAFETY: libvirt's array lives for the call.
        let statistics = unsafe { job_statistics(params, count) };
        client.publish(&Event::JobCompleted { name, statistics: convert::progress(&statistics) });
    }
}

unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt hands over what was registered and a handle that lives for the call.
    let (client, name) = unsafe { (client(opaque), name_of(domain)) };
    if let (Some(client), Some(name)) = (client, name) {
        let connected = state as u32 == sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED;
        client.publish(&Event::Agent { name, connected });
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt hands over what was registered.
    let Some(client) = (unsafe { client(opaque) }) else { return };
    let why = match reason as u32 {
        sys::VIR_CONNECT_CLOSE_REASON_EOF => "the daemon closed the connection",
        sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "the daemon did not answer the keepalive",
        sys::VIR_CONNECT_CLOSE_REASON_CLIENT => return,
        _ => "the connection to the daemon failed",
    };
    client.lost(why);
}
