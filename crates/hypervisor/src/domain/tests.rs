//! Golden documents and the round trip.

use expect_test::expect_file;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn small() -> Domain {
    Domain {
        name: "default_t1".to_owned(),
        uuid: Uuid::from_u128(0x6d1b1b5e_0b4c_4b8e_9d3e_2f3c2e0a1b11),
        accelerator: Accelerator::Emulation,
        memory_kib: 1024,
        vcpus: 1,
        machine: "pc-q35-7.2".to_owned(),
        smbios: None,
        cpu: Cpu { model: CpuModel::Named("qemu64".to_owned()), topology: None, features: Vec::new() },
        on_crash: OnCrash::Destroy,
        disks: Vec::new(),
        interfaces: Vec::new(),
        serial: None,
        vnc: None,
        agent: None,
        rng: false,
        balloon: None,
        watchdog: None,
        tablet: false,
        metadata: None,
    }
}

fn full() -> Domain {
    Domain {
        accelerator: Accelerator::Kvm,
        memory_kib: 262_144,
        vcpus: 2,
        smbios: Some(Smbios {
            manufacturer: Some("KubeVirt".to_owned()),
            product: Some("None".to_owned()),
            family: Some("KubeVirt".to_owned()),
            ..Smbios::default()
        }),
        cpu: Cpu {
            model: CpuModel::HostModel,
            topology: Some(Topology { sockets: 2, cores: 1, threads: 1 }),
            features: vec![CpuFeature { name: "vmx".to_owned(), policy: FeaturePolicy::Disable }],
        },
        on_crash: OnCrash::Restart,
        disks: vec![
            Disk {
                name: "root".to_owned(),
                medium: Medium::Disk,
                bus: Bus::Virtio,
                target: "vda".to_owned(),
                source: Source::File("/run/private/disks/root.qcow2".to_owned()),
                format: Format::Qcow2,
                cache: Cache::None,
                read_only: false,
                boot_order: Some(1),
            },
            Disk {
                name: "seed".to_owned(),
                medium: Medium::CdRom,
                bus: Bus::Sata,
                target: "sda".to_owned(),
                source: Source::File("/run/private/seed & more.iso".to_owned()),
                format: Format::Raw,
                cache: Cache::Writethrough,
                read_only: true,
                boot_order: None,
            },
        ],
        interfaces: vec![Interface {
            name: "default".to_owned(),
            mac: "02:00:00:12:34:56".to_owned(),
            tap: "tap0".to_owned(),
            mtu: Some(1480),
        }],
        serial: Some(Serial {
            socket: "/run/private/serial0.sock".to_owned(),
            log: Some("/run/private/serial0.log".to_owned()),
        }),
        vnc: Some("/run/private/vnc.sock".to_owned()),
        agent: Some("/run/private/agent.sock".to_owned()),
        rng: true,
        balloon: Some(Balloon { stats_period: 10, free_page_reporting: true }),
        watchdog: Some(WatchdogAction::Reset),
        tablet: true,
        metadata: Some(Metadata { uid: "7f6e-<uid>".to_owned(), grace_period_seconds: Some(30) }),
        ..small()
    }
}

#[test]
fn a_guest_without_anything() {
    expect_file!["golden/small.xml"].assert_eq(&write(&small()));
}

#[test]
fn a_guest_with_everything() {
    expect_file!["golden/full.xml"].assert_eq(&write(&full()));
}

/// What libvirt 11.3 made of a document we gave to libvirt 9.0, after a migration.
#[test]
fn what_a_hypervisor_adds_is_passed_over() {
    let read = read(include_str!("golden/reported-by-libvirt.xml")).unwrap();
    assert_eq!(read.machine, "pc-q35-7.2");
    assert_eq!(read.disks[0].source, Source::File("/run/private/disks/root.qcow2".to_owned()));
    assert_eq!(read.interfaces[0].tap, "tap0");
    assert_eq!(read.serial.unwrap().socket, "/run/private/serial0.sock");
    assert_eq!(read.vnc.as_deref(), Some("/run/private/vnc.sock"));
    assert_eq!(read.balloon, Some(Balloon { stats_period: 10, free_page_reporting: true }));
}

#[test]
fn a_document_that_is_no_domain_says_why() {
    assert_eq!(read("<network/>"), Err(ReadError::Missing("domain element")));
    assert!(matches!(read("<domain"), Err(ReadError::Xml(_))));
    let alien = write(&small()).replace("type=\"qemu\"", "type=\"xen\"");
    assert_eq!(read(&alien), Err(ReadError::Unknown { what: "domain type", value: "xen".to_owned() }));
    let deep = format!("{}{}", "<domain>".repeat(100), "</domain>".repeat(100));
    assert!(matches!(read(&deep), Err(ReadError::Xml(_))));
}

/// Names and paths with everything XML has to escape; what it cannot hold at all (control characters) no validation lets
/// through, and white space at the ends is layout.
fn word() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_/.<>&\"'äß✓:-][a-zA-Z0-9_/. <>&\"'äß✓:-]{0,20}[a-zA-Z0-9<>&]"
}

fn cpu() -> impl Strategy<Value = Cpu> {
    let model =
        prop_oneof![Just(CpuModel::HostModel), Just(CpuModel::HostPassthrough), word().prop_map(CpuModel::Named),];
    let policy = prop_oneof![
        Just(FeaturePolicy::Force),
        Just(FeaturePolicy::Require),
        Just(FeaturePolicy::Optional),
        Just(FeaturePolicy::Disable),
        Just(FeaturePolicy::Forbid),
    ];
    let topology =
        (1..9_u32, 1..9_u32, 1..3_u32).prop_map(|(sockets, cores, threads)| Topology { sockets, cores, threads });
    let feature = (word(), policy).prop_map(|(name, policy)| CpuFeature { name, policy });
    (model, option::of(topology), prop::collection::vec(feature, 0..3)).prop_map(|(model, topology, features)| Cpu {
        model,
        topology,
        features,
    })
}

fn disk() -> impl Strategy<Value = Disk> {
    let source = prop_oneof![word().prop_map(Source::File), word().prop_map(Source::Block)];
    let cache = prop_oneof![Just(Cache::None), Just(Cache::Writethrough), Just(Cache::Writeback)];
    let bus = prop_oneof![Just(Bus::Virtio), Just(Bus::Sata), Just(Bus::Scsi), Just(Bus::Usb)];
    let format = prop_oneof![Just(Format::Raw), Just(Format::Qcow2)];
    let medium = prop_oneof![Just(Medium::Disk), Just(Medium::CdRom)];
    (word(), medium, bus, word(), source, format, cache, any::<bool>(), option::of(1..9_u32)).prop_map(
        |(name, medium, bus, target, source, format, cache, read_only, boot_order)| Disk {
            name,
            medium,
            bus,
            target,
            source,
            format,
            cache,
            read_only,
            boot_order,
        },
    )
}

fn smbios() -> impl Strategy<Value = Smbios> {
    let field = || option::of(word());
    (field(), field(), field(), field(), field(), field()).prop_map(
        |(manufacturer, product, version, serial, sku, family)| Smbios {
            manufacturer,
            product,
            version,
            serial,
            sku,
            family,
        },
    )
}

fn domain() -> impl Strategy<Value = Domain> {
    let accelerator = prop_oneof![Just(Accelerator::Kvm), Just(Accelerator::Emulation)];
    let watchdog =
        prop_oneof![Just(WatchdogAction::Reset), Just(WatchdogAction::Poweroff), Just(WatchdogAction::Shutdown)];
    let balloon = (0..60_u32, any::<bool>())
        .prop_map(|(stats_period, free_page_reporting)| Balloon { stats_period, free_page_reporting });
    let metadata = (word(), option::of(0..10_000_u64))
        .prop_map(|(uid, grace_period_seconds)| Metadata { uid, grace_period_seconds });
    let serial = (word(), option::of(word())).prop_map(|(socket, log)| Serial { socket, log });
    let interface = (word(), word(), word(), option::of(576..9001_u32)).prop_map(|(name, mac, tap, mtu)| Interface {
        name,
        mac,
        tap,
        mtu,
    });
    let machine = (word(), any::<u128>(), accelerator, 1..1_u64 << 40, 1..256_u32, word(), option::of(smbios()), cpu());
    let devices = (
        prop::collection::vec(disk(), 0..4),
        prop::collection::vec(interface, 0..3),
        option::of(serial),
        option::of(word()),
        option::of(word()),
        any::<(bool, bool, bool)>(),
        option::of(balloon),
        option::of(watchdog),
        option::of(metadata),
    );
    (machine, devices).prop_map(|(machine, devices)| {
        let (name, uuid, accelerator, memory_kib, vcpus, machine, smbios, cpu) = machine;
        let (disks, interfaces, serial, vnc, agent, (rng, tablet, restart), balloon, watchdog, metadata) = devices;
        let on_crash = if restart { OnCrash::Restart } else { OnCrash::Destroy };
        Domain {
            name,
            uuid: Uuid::from_u128(uuid),
            accelerator,
            memory_kib,
            vcpus,
            machine,
            smbios,
            cpu,
            on_crash,
            disks,
            interfaces,
            serial,
            vnc,
            agent,
            rng,
            balloon,
            watchdog,
            tablet,
            metadata,
        }
    })
}

proptest! {
    #[test]
    fn reading_what_was_written_gives_the_same_domain(domain in domain()) {
        prop_assert_eq!(read(&write(&domain)), Ok(domain));
    }
}
