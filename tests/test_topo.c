/* tests/test_topo.c - topologies: three formats, real and hostile files, names, as hardware.
 * SPDX-License-Identifier: Apache-2.0 */
#include "model/topo.h"

#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "model/topo_in.h"
#include "tests/test.h"
#include "tests/topo_check.h"

/* ---- small examples of each format, made up */

static const char smi_text[] =
    "# cpu: {\"model\": \"Example 9000\", \"physical_cores\": 32, \"logical_cores\": 64, "
    "\"numa_nodes\": 2}\n"
    "\t\033[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\033[0m\n"
    "GPU0\t X \tNV4\tPXB\tSYS\tPIX\t0-15\t0\t\tN/A\n"
    "GPU1\tNV4\t X \tPHB\tSYS\tNODE\t0-15\t0\t\tN/A\n"
    "GPU2\tPXB\tPHB\t X \tNV4\tSYS\t16-31\t1\t\tN/A\n"
    "GPU3\tSYS\tSYS\tNV4\t X \tSYS\t16-31\t1\t\tN/A\n"
    "NIC0\tPIX\tNODE\tSYS\tSYS\t X \t\t\t\t\n"
    "\nLegend:\n\n  X    = Self\n  NV#  = Connection traversing a bonded set of # NVLinks\n"
    "\nNIC Legend:\n\n  NIC0: mlx5_7\n";

static const char nccl_text[] =
    "<!-- a comment with <topology> in it -->\n"
    "<system version=\"1\">\n"
    " <cpu numaid=\"0\" arch=\"x86_64\" vendor=\"GenuineIntel\" familyid=\"6\" modelid=\"106\">\n"
    "  <pci busid=\"0000:0c:00.0\" class=\"0x060400\" link_speed=\"16 GT/s\" link_width=\"16\">\n"
    "   <pci busid=\"0000:13:00.0\" class=\"0x030200\" vendor=\"0x10de\" device=\"0x20b2\" "
    "link_speed=\"16 GT/s\" link_width=\"16\">\n"
    "    <gpu dev=\"0\" sm=\"80\" rank=\"0\"><nvlink target=\"0000:c3:00.0\" count=\"12\" "
    "tclass=\"0x068000\"/></gpu>\n"
    "   </pci>\n"
    "   <pci busid=\"0000:14:00.0\" class=\"0x030200\" vendor=\"0x10de\" device=\"0x20b2\" "
    "link_speed=\"8.0 GT/s PCIe\" link_width=\"8\">\n"
    "    <gpu dev=\"1\" sm=\"80\" rank=\"1\"><nvlink target=\"0000:c3:00.0\" count=\"10\" "
    "tclass=\"0x068000\"/></gpu>\n"
    "   </pci>\n"
    "   <pci busid=\"0000:15:00.0\" class=\"0x020700\"><nic><net name=\"ib0\" speed=\"400000\" "
    "gdr=\"1\"/></nic></pci>\n"
    "  </pci>\n </cpu>\n"
    " <cpu numaid=\"1\"><pci busid=\"0000:93:00.0\" class=\"0x030200\" vendor=\"0x10de\" "
    "device=\"0x20b2\" "
    "link_speed=\"16 GT/s\" link_width=\"16\">\n"
    "  <gpu dev=\"2\" sm=\"80\"><nvlink target=\"0000:13:00.0\" count=\"2\" "
    "tclass=\"0x030200\"/></gpu></pci>\n"
    "  <nic><net name=\"eth0\" speed=\"25000\"/></nic></cpu>\n"
    "</system>\n";

#define BRIDGE(gp, kind) "<object type=\"Bridge\" gp_index=\"" gp "\" bridge_type=\"" kind "\">"
#define GPU(gp, bus, n)                                                                            \
    "<object type=\"PCIDev\" gp_index=\"1" gp "\" pci_busid=\"0000:" bus                           \
    ":00.0\" pci_type=\"0302 [10de:2330] [10de:16c1] a1\" pci_link_speed=\"63.015385\">"           \
    "<object type=\"OSDev\" gp_index=\"2" gp "\" name=\"nvml" n "\" osdev_type=\"5\">"             \
    "<info name=\"GPUModel\" value=\"NVIDIA H100 80GB HBM3\"/></object></object>"

static const char hwloc_text[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n"
    "<topology version=\"2.0\"><object type=\"Machine\" gp_index=\"1\">\n"
    "<info name=\"DMIProductName\" value=\"Box\"/>\n"
    "<object type=\"Package\" gp_index=\"3\" nodeset=\"0x00000001\"><info name=\"CPUModel\" "
    "value=\"Example\"/>"
    "<object type=\"NUMANode\" os_index=\"0\" nodeset=\"0x00000001\" local_memory=\"1000000000\"/>"
    "<object type=\"Core\" nodeset=\"0x00000001\"><object type=\"PU\"/><object "
    "type=\"PU\"/></object>\n" BRIDGE("10", "0-1") BRIDGE("11", "1-1") BRIDGE("12", "1-1")
        GPU("0", "1b", "0") "</object>\n" BRIDGE("13", "1-1") GPU(
            "1", "1c",
            "1") "</object>"
                 "<object type=\"PCIDev\" gp_index=\"30\" pci_busid=\"0000:1d:00.0\" "
                 "pci_type=\"0207 [15b3:1021]\">"
                 "<object type=\"OSDev\" name=\"ib0\" osdev_type=\"2\"/><object type=\"OSDev\" "
                 "name=\"mlx5_0\" osdev_type=\"3\"/>"
                 "</object></object></object>\n"
                 "<object type=\"PCIDev\" gp_index=\"40\" subtype=\"NVSwitch\" pci_type=\"0680 "
                 "[10de:22a3]\"/></object>\n"
                 "<object type=\"Package\" nodeset=\"0x00000002\">"
                 "<object type=\"NUMANode\" os_index=\"1\" nodeset=\"0x00000002\" "
                 "local_memory=\"2000000000\"/>\n" BRIDGE("14", "0-1") GPU(
                     "2", "9b",
                     "2") "<object type=\"PCIDev\" pci_busid=\"0000:a0:00.0\" pci_type=\"0300 "
                          "[1a03:2000]\"/></object></object></object>\n"
                          "<distances2hetero nbobjs=\"4\" name=\"NVLinkBandwidth\">"
                          "<indexes length=\"40\">OSDev:20 OSDev:21 OSDev:22 PCIDev:40 </indexes>\n"
                          "<u64values length=\"1\">1000000 0 0 450000 0 1000000 0 </u64values>"
                          "<u64values length=\"1\">450000 0 0 1000000 100000 450000 450000 100000 "
                          "0 </u64values></distances2hetero>\n"
                          "</topology>\n";

static const char *put_bytes(const void *bytes, size_t n)
{
    const char *path = test_path("topo");
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
    return path;
}

static int read_text(const char *text, struct arena *a, struct topo *t, struct err *e)
{
    *e = (struct err){ 0 };
    return topo_read(put_bytes(text, strlen(text)), a, t, e);
}

TEST(topo_reads_nvidia_smi_text)
{
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    arena_init(&a);
    CHECK_OK(read_text(smi_text, &a, &t, &e), &e);
    CHECK_SAME(topo_fault(&t), NULL);
    CHECK_INT(t.n_gpu, 4);
    CHECK_INT(topo_pair(&t, 0, 1)->kind, TOPO_NVLINK);
    CHECK_INT(topo_pair(&t, 0, 1)->n_nvlink, 4);
    CHECK(!topo_pair(&t, 0, 1)->switched && t.knows_nvlink);
    CHECK_INT(topo_pair(&t, 0, 1)->pcie, TOPO_UNKNOWN);
    CHECK_INT(topo_pair(&t, 1, 2)->kind, TOPO_PHB);
    CHECK_INT(t.gpu[3].numa, 1);
    CHECK_INT(t.n_nic, 1);
    CHECK_TEXT(t.nic[0].name, "mlx5_7");
    CHECK_INT(t.nic[0].near_gpu, 0);
    CHECK_INT(t.nic[0].to_gpu[1], TOPO_NODE);
    CHECK_TEXT(t.cpu_model, "Example 9000");
    CHECK_INT(t.n_core, 32);
    CHECK_INT(t.n_thread, 64);
    CHECK_INT(t.n_numa, 2);
    CHECK_TEXT(t.source, "nvidia-smi topo text topo");
    arena_release(&a);
}

/* Pasted text has blanks for tabs; the same facts but for an affinity that blanks make
 * ambiguous. */
TEST(topo_reads_nvidia_smi_text_with_blanks)
{
    char blanks[sizeof smi_text * 3];
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    size_t n = 0;
    for (const char *p = smi_text; *p; p++) {
        if (*p != '\t')
            blanks[n++] = *p;
        else
            for (int k = 0; k < 3; k++) blanks[n++] = ' ';
    }
    blanks[n] = 0;
    arena_init(&a);
    CHECK_OK(read_text(blanks, &a, &t, &e), &e);
    CHECK_INT(t.n_gpu, 4);
    CHECK_INT(t.n_nic, 1);
    CHECK_INT(topo_pair(&t, 2, 3)->n_nvlink, 4);
    CHECK_INT(t.gpu[2].numa, 1);
    arena_release(&a);
}

TEST(topo_reads_nccl_xml)
{
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    arena_init(&a);
    CHECK_OK(read_text(nccl_text, &a, &t, &e), &e);
    CHECK_SAME(topo_fault(&t), NULL);
    CHECK_INT(t.n_gpu, 3);
    CHECK_TEXT(t.gpu[0].name, "NVIDIA A100-SXM4-80GB");
    CHECK_TEXT(t.gpu[0].catalog, "a100-sxm-80gb");
    CHECK_TEXT(t.gpu[1].bus_id, "0000:14:00.0");
    CHECK_INT(t.gpu[1].pcie_gen, 3);
    CHECK_NEAR(t.gpu[1].pcie_bytes_per_s, 8 * 8e9 / 8 * 128 / 130, 1e-12);
    /* through the switch at the rate of the side with fewer links; directly from GPU 2 */
    CHECK_INT(topo_pair(&t, 0, 1)->n_nvlink, 10);
    CHECK(topo_pair(&t, 0, 1)->switched);
    CHECK_NEAR(topo_pair(&t, 1, 0)->bytes_per_s, 250e9, 1e-12);
    CHECK_INT(topo_pair(&t, 0, 1)->pcie, TOPO_PIX);
    CHECK_INT(topo_pair(&t, 2, 0)->n_nvlink, 2);
    CHECK(!topo_pair(&t, 2, 0)->switched);
    CHECK_INT(topo_pair(&t, 1, 2)->kind, TOPO_SYS);
    CHECK_INT(t.n_nic, 2);
    CHECK_TEXT(t.nic[0].name, "ib0");
    CHECK(t.nic[0].rdma && !t.nic[1].rdma);
    CHECK_NEAR(t.nic[0].bytes_per_s, 50e9, 1e-12);
    CHECK_INT(t.nic[0].to_gpu[0], TOPO_PIX);
    CHECK_INT(t.nic[1].to_gpu[2], TOPO_PHB);
    CHECK_INT(t.nic[1].near_gpu, 2);
    CHECK_INT(t.n_numa, 2);
    arena_release(&a);
}

TEST(topo_reads_hwloc_xml)
{
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    arena_init(&a);
    CHECK_OK(read_text(hwloc_text, &a, &t, &e), &e);
    CHECK_SAME(topo_fault(&t), NULL);
    CHECK_INT(t.n_gpu, 3);
    CHECK_TEXT(t.machine, "Box");
    CHECK_TEXT(t.gpu[2].catalog, "h100-sxm");
    CHECK_INT(topo_pair(&t, 0, 1)->pcie, TOPO_PIX);
    CHECK_INT(topo_pair(&t, 0, 2)->pcie, TOPO_SYS);
    CHECK_INT(topo_pair(&t, 0, 1)->n_nvlink, 18);
    CHECK(topo_pair(&t, 0, 1)->switched);
    CHECK_NEAR(topo_pair(&t, 0, 1)->bytes_per_s, 450e9, 1e-12);
    CHECK_NEAR(topo_pair(&t, 2, 1)->bytes_per_s, 100e9, 1e-12);
    CHECK_INT(topo_pair(&t, 2, 1)->n_nvlink, 4);
    CHECK_NEAR(t.gpu[0].pcie_bytes_per_s, 63.015385e9, 1e-9);
    CHECK_INT(t.gpu[2].numa, 1);
    CHECK_INT(t.n_nic, 1);
    CHECK_TEXT(t.nic[0].name, "mlx5_0");
    CHECK(t.nic[0].rdma);
    CHECK_INT(t.nic[0].to_gpu[1], TOPO_PIX);
    CHECK_INT(t.nic[0].to_gpu[2], TOPO_SYS);
    CHECK_INT(t.n_socket, 2);
    CHECK_INT(t.n_core, 1);
    CHECK_INT(t.n_thread, 2);
    CHECK_NEAR(t.mem_bytes, 3e9, 0);
    arena_release(&a);
}

/* ---- real machines */

struct fact {
    const char *file;
    int n_gpu, links;    /* the fewest NVLinks of a pair */
    int joined;          /* pairs with NVLink */
    bool switched, told; /* NVSwitch; NVLink is described */
    int n_numa, n_nic;
    const char *one_switch; /* pairs behind one PCIe switch, where the format shows it */
    const char *near;       /* nearest GPU of each NIC */
    const char *catalog;    /* of GPU 0 */
};

/* Read off the files by eye; one_switch and near from their rows PIX, PXB and NODE. */
static const struct fact facts[] = {
    { "accelmark/nvidia_a100_sxm4_40gb_box_of_8.txt", 8, 12, 28, true, true, 2, 4, "", "0 0 2 4",
      NULL },
    { "accelmark/nvidia_a800_sxm4_80gb_box_of_8.txt", 8, 8, 28, true, true, 2, 4, "", "2 0 6 4",
      NULL },
    { "accelmark/nvidia_geforce_rtx_3090_box_of_4.txt", 4, 0, 0, false, true, 2, 0, "0-1 2-3", "",
      NULL },
    { "accelmark/nvidia_geforce_rtx_4090_box_of_4.txt", 4, 0, 0, false, true, 2, 0, "", "", NULL },
    { "accelmark/nvidia_geforce_rtx_4090_box_of_8.txt", 8, 0, 0, false, true, 2, 0, "0-1 6-7", "",
      NULL },
    { "accelmark/nvidia_geforce_rtx_4090_d_box_of_4.txt", 4, 0, 0, false, true, 2, 0, "", "",
      NULL },
    { "accelmark/nvidia_geforce_rtx_5090_box_of_4.txt", 4, 0, 0, false, true, 4, 2, "", "0 0",
      NULL },
    { "accelmark/nvidia_h200_box_of_8.txt", 8, 18, 28, true, true, 4, 10, "", "0 1 2 3 3 3 4 5 6 7",
      NULL },
    { "accelmark/nvidia_h20_3e_box_of_4.txt", 4, 18, 6, true, true, 2, 2, "", "2 0", NULL },
    { "accelmark/nvidia_h20_3e_box_of_8.txt", 8, 18, 28, true, true, 2, 2, "", "2 6", NULL },
    { "accelmark/nvidia_rtx_a6000_box_of_4.txt", 4, 0, 0, false, true, 2, 4, "0-1", "0 0 0 0",
      NULL },
    { "accelmark/nvidia_rtx_a6000_box_of_8.txt", 8, 0, 0, false, true, 2, 4, "0-1 3-4", "0 5 0 0",
      NULL },
    { "accelmark/tesla_v100s_pcie_32gb_box_of_8.txt", 8, 0, 0, false, true, 2, 4, "0-1 3-4",
      "0 0 0 0", NULL },
    { "xml/aws-g5.48xl-topo.xml", 0, 0, 0, false, false, 2, 0, "", "", NULL },
    { "xml/aws-p4d-24xl-topo.xml", 8, 0, 0, false, false, 2, 4, "0-1 2-3 4-5 6-7", "0 2 4 6",
      "a100-sxm-40gb" },
    { "xml/aws-p4de-24xl-topo.xml", 8, 0, 0, false, false, 2, 4, "0-1 2-3 4-5 6-7", "0 2 4 6",
      "a100-sxm-80gb" },
    { "xml/aws-p5.48xl-topo.xml", 8, 0, 0, false, false, 1, 32, "",
      "0 0 0 0 1 1 1 1 2 2 2 2 3 3 3 3 4 4 4 4 5 5 5 5 6 6 6 6 7 7 7 7", NULL },
    { "xml/azure-ncv4-topo.xml", 4, 0, 0, false, false, 4, 1, "", "0", "a100-pcie-80gb" },
    { "xml/azure-ndv2-topo.xml", 8, 0, 0, false, false, 2, 1, "", "0", NULL },
    { "xml/azure-ndv4-topo.xml", 8, 0, 0, false, false, 4, 8, "0-1 2-3 4-5 6-7", "0 0 2 2 4 4 6 6",
      NULL },
    { "xml/azure-ndv5-topo.xml", 8, 0, 0, false, false, 2, 8, "", "0 1 2 3 4 5 6 7", NULL },
    { "xml/hwloc-nvidia-dgx2.xml", 16, 6, 120, true, true, 2, 0,
      "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15", "", NULL },
    { "xml/hwloc-power8-4p100.xml", 4, 0, 2, false, true, 2, 0, "", "", NULL },
    { "xml/simai-1a100-1cx6.xml", 1, 0, 0, false, true, 1, 2, "", "0 0", "a100-sxm-80gb" },
    { "xml/simai-2a100-1cx6.xml", 2, 12, 1, true, true, 1, 2, "", "0 0", "a100-sxm-80gb" },
    { "xml/simai-4a100-2cx6.xml", 4, 12, 6, true, true, 1, 3, "", "0 0 2", "a100-sxm-80gb" },
    { "xml/simai-8a100-4cx6.xml", 8, 12, 28, true, true, 2, 5, "", "0 0 2 4 6", "a100-sxm-80gb" },
    { "xml/synthetic-dgx-h100.hwloc.xml", 8, 18, 28, true, true, 2, 8, "", "0 1 2 3 4 5 6 7",
      "h100-sxm" },
    { "xml/synthetic-pcie-l40s.hwloc.xml", 4, 0, 0, false, true, 2, 1, "", "2", "l40s" },
};

static void check_facts(const struct topo *t, const struct fact *f)
{
    char pix[512] = "", near[512] = "";
    int links = t->n_gpu > 1 ? 99 : 0, joined = 0;
    bool switched = false;
    for (int i = 0; i < t->n_gpu; i++)
        for (int j = i + 1; j < t->n_gpu; j++) {
            const struct topo_pair *p = topo_pair(t, i, j);
            size_t n = strlen(pix);
            links = p->n_nvlink < links ? p->n_nvlink : links;
            joined += p->kind == TOPO_NVLINK;
            switched |= p->switched;
            if (p->pcie == TOPO_PIX)
                snprintf(pix + n, sizeof pix - n, "%s%d-%d", n ? " " : "", i, j);
        }
    for (int k = 0; k < t->n_nic && t->n_gpu; k++) {
        size_t n = strlen(near);
        snprintf(near + n, sizeof near - n, "%s%d", n ? " " : "", t->nic[k].near_gpu);
    }
    CHECK_INT(t->n_gpu, f->n_gpu);
    CHECK_INT(links, f->links);
    CHECK_INT(joined, f->joined);
    CHECK_INT(switched, f->switched);
    CHECK_INT(t->knows_nvlink, f->told);
    CHECK_INT(t->n_numa, f->n_numa);
    CHECK_INT(t->n_nic, f->n_nic);
    CHECK_TEXT(pix, f->one_switch);
    CHECK_TEXT(near, f->near);
    CHECK_SAME(t->n_gpu ? t->gpu[0].catalog : NULL, f->catalog);
    CHECK_SAME(topo_fault(t), NULL);
}

TEST(topo_reads_real_machines)
{
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        char path[256];
        struct arena a;
        struct err e = { 0 };
        struct topo t;
        snprintf(path, sizeof path, "hardware_topology_%s", facts[i].file);
        arena_init(&a);
        CHECK_OK(topo_read(test_data(path), &a, &t, &e), &e);
        check_facts(&t, &facts[i]);
        arena_release(&a);
    }
}

/* libhwloc reads the same files: counts, memory, and NVLink by its own merging of switches. */
static void compare_with_hwloc(const char *path)
{
    hwloc_topology_t h;
    struct arena a;
    struct err e = { 0 };
    struct topo t;
    unsigned one = 1;
    struct hwloc_distances_s *d = NULL;
    arena_init(&a);
    CHECK_OK(topo_read(path, &a, &t, &e), &e);
    CHECK(hwloc_topology_init(&h) == 0 && hwloc_topology_set_xml(h, path) == 0);
    hwloc_topology_set_io_types_filter(h, HWLOC_TYPE_FILTER_KEEP_ALL);
    CHECK(hwloc_topology_load(h) == 0);
    CHECK_INT(t.n_thread, hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_PU));
    CHECK_INT(t.n_core, hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_CORE));
    CHECK_INT(t.n_socket, hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_PACKAGE));
    CHECK_INT(t.n_numa, hwloc_get_nbobjs_by_type(h, HWLOC_OBJ_NUMANODE));
    CHECK_NEAR(t.mem_bytes, (double)hwloc_get_root_obj(h)->total_memory, 1e-12);
    for (int i = 0; i < t.n_gpu; i++) {
        hwloc_obj_t o = hwloc_get_pcidev_by_busidstring(h, t.gpu[i].bus_id);
        hwloc_obj_t up = o ? hwloc_get_non_io_ancestor_obj(h, o) : NULL;
        CHECK(up != NULL);
        if (up) CHECK_INT(t.gpu[i].numa, hwloc_bitmap_first(up->nodeset));
        if (o) CHECK_NEAR(t.gpu[i].pcie_bytes_per_s, (double)o->attr->pcidev.linkspeed * 1e9, 1e-6);
    }
    hwloc_distances_get_by_name(h, "NVLinkBandwidth", &one, &d, 0);
    if (one) {
        bool switches = d->objs[d->nbobjs - 1]->type == HWLOC_OBJ_PCI_DEVICE;
        if (switches)
            hwloc_distances_transform(h, d, HWLOC_DISTANCES_TRANSFORM_MERGE_SWITCH_PORTS, NULL, 0);
        if (switches)
            hwloc_distances_transform(h, d, HWLOC_DISTANCES_TRANSFORM_TRANSITIVE_CLOSURE, NULL, 0);
        for (unsigned i = 0; i < d->nbobjs; i++)
            for (unsigned j = 0; j < d->nbobjs; j++) {
                hwloc_obj_t x = d->objs[i], y = d->objs[j];
                if (i == j || !x || !y || x->type != HWLOC_OBJ_OS_DEVICE ||
                    y->type != HWLOC_OBJ_OS_DEVICE)
                    continue;
                const struct topo_pair *p = topo_pair(&t, atoi(x->name + 4), atoi(y->name + 4));
                CHECK_NEAR(p->kind == TOPO_NVLINK ? p->bytes_per_s : 0,
                           (double)d->values[i * d->nbobjs + j] * 1e6, 1e-9);
            }
        hwloc_distances_release(h, d);
    } else {
        for (int i = 0; i < t.n_gpu; i++)
            for (int j = 0; j < t.n_gpu; j++) CHECK_INT(topo_pair(&t, i, j)->n_nvlink, 0);
    }
    hwloc_topology_destroy(h);
    arena_release(&a);
}

TEST(topo_agrees_with_libhwloc_on_its_files)
{
    compare_with_hwloc(test_data("hardware_topology_xml/hwloc-nvidia-dgx2.xml"));
    compare_with_hwloc(test_data("hardware_topology_xml/hwloc-power8-4p100.xml"));
    compare_with_hwloc(test_data("hardware_topology_xml/synthetic-dgx-h100.hwloc.xml"));
    compare_with_hwloc(test_data("hardware_topology_xml/synthetic-pcie-l40s.hwloc.xml"));
}

/* ---- malformed and hostile files */

static void refused(const char *text, const char *part)
{
    struct arena a;
    struct err e;
    struct topo t;
    arena_init(&a);
    CHECK_INT(read_text(text, &a, &t, &e), ST_USAGE);
    CHECK_HAS(e.text, part);
    CHECK(!strchr(e.text, '\n'));
    arena_release(&a);
}

TEST(topo_refuses_with_a_place)
{
    refused("", "no topology in it");
    refused("hello\n", "topo:1: 'hello': neither XML nor the header");
    refused("<a/>", "whose first element is neither");
    refused("<system><cpu numaid=\"0\">", "topo:1: ");
    refused("\tGPU0\tGPU1\nGPU0\t X \tNV4\n", "the row of GPU1 is missing");
    refused("\tGPU0\tGPU1\nGPU0\t X \tNV4\nGPU1\tPIX\t X \n",
            "GPU1 to GPU0 is not what GPU0 to GPU1 is");
    refused("\tGPU0\tGPU1\nGPU0\tPIX\tNV4\n", "topo:2: GPU0 to GPU0: 'PIX' belongs");
    refused("\tGPU0\tGPU1\nGPU0\t X \t X \n", "GPU0 to GPU1: 'X' belongs");
    refused("\tGPU0\tGPU1\nGPU0\t X \tNV99\n", "'NV99' is none of");
    refused("\tGPU0\tGPU1\nGPU0\t X \n", "has 1 cells, the header 2");
    refused("\tGPU0\tGPU0\n", "two columns are called GPU0");
    refused("\tGPU0\nGPU7\t X \n", "no column of that name");
    refused("<system><cpu><gpu dev=\"0\"/></cpu></system>", "outside a <pci>");
    refused("<system><cpu><pci class=\"0x030200\"><gpu><nvlink target=\"x\" "
            "count=\"1\"/></gpu></pci></cpu></system>",
            "<nvlink> needs a target");
    refused("<topology><object/></topology>", "without a type");
    refused("<topology><distances2hetero nbobjs=\"2\" name=\"NVLinkBandwidth\"><indexes>OSDev:1 "
            "</indexes>"
            "</distances2hetero></topology>",
            "1 objects and 0 values, not 2 and 4");
    refused("<topology><distances2hetero nbobjs=\"1\" name=\"NVLinkBandwidth\"><u64values>1 "
            "2</u64values>",
            "more entries than 1 objects give");
}

TEST(topo_refuses_entities_depth_and_size)
{
    refused("<?xml version=\"1.0\"?><!DOCTYPE system [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">"
            "]><system>&b;</system>",
            "the entity 'a' is declared");
    refused("<!DOCTYPE system [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><system>&x;</system>",
            "the entity 'x' is declared");
    size_t n = 1 << 20;
    char *text = malloc(3 * n + 64);
    strcpy(text, "<system>");
    for (size_t i = 0; i < n / 2; i++) memcpy(text + 8 + 5 * i, "<cpu>", 6);
    refused(text, "nest deeper than 128");
    text[0] = 0;
    for (size_t i = 0; i < n; i++) memcpy(text + 3 * i, "\tGP", 4);
    refused(text, "a line of");
    memcpy(text, "\tGPU0", 5);
    size_t at = 5;
    for (int i = 0; i < 3000; i++) at += (size_t)sprintf(text + at, "\tGPU%d", i + 1);
    refused(text, "more than");
    at = (size_t)sprintf(text, "<system><cpu numaid=\"0\">");
    for (int i = 0; i < 300; i++)
        at += (size_t)sprintf(text + at, "<pci class=\"0x030200\" busid=\"0000:%02x:00.0\"/>",
                              i % 256);
    strcpy(text + at, "</cpu></system>");
    refused(text, "more than 256 GPUs");
    free(text);
}

TEST(topo_survives_every_truncation)
{
    const char *const all[] = { smi_text, nccl_text, hwloc_text };
    for (size_t k = 0; k < 3; k++) {
        for (size_t n = 0; n < strlen(all[k]); n++) {
            struct arena a;
            struct err e = { 0 };
            struct topo t;
            arena_init(&a);
            int st = topo_read(put_bytes(all[k], n), &a, &t, &e);
            CHECK_INT(st, e.status);
            if (st == ST_OK) CHECK_SAME(topo_fault(&t), NULL);
            /* an XML file without its end is never taken */
            if (k > 0 && n + 1 < strlen(all[k])) CHECK_INT(st, ST_USAGE);
            arena_release(&a);
        }
    }
}

TEST(topo_survives_random_changes)
{
    const char *const all[] = { smi_text, nccl_text, hwloc_text };
    struct rng r = rng_stream(1, "topo.mutations");
    uint64_t draw = 0;
    char text[8192];
    for (int i = 0; i < 6000; i++) {
        const char *from = all[i % 3];
        struct arena a;
        struct err e = { 0 };
        struct topo t;
        size_t n = strlen(from);
        memcpy(text, from, n);
        for (uint64_t k = 1 + rng_below(r, draw++, 4); k; k--) {
            size_t at = rng_below(r, draw++, n), to = rng_below(r, draw++, n),
                   len = rng_below(r, draw++, 40);
            if (at + len > n || to + len > n) len = 1;
            if (k % 2)
                text[at] = (char)rng_bits(r, draw++);
            else
                memmove(text + to, text + at, len);
        }
        arena_init(&a);
        int st = topo_read(put_bytes(text, n), &a, &t, &e);
        CHECK_INT(st, e.status);
        if (st == ST_OK) CHECK_SAME(topo_fault(&t), NULL);
        arena_release(&a);
    }
}

/* ---- names */

static const struct {
    const char *reported;
    double gib; /* usable memory as told beside the name; 0 none */
    const char *catalog;
} names[] = {
    { "Tesla T4", 0, "t4" },
    { "NVIDIA T4", 14.75, "t4" },
    { "Tesla V100-SXM2-16GB", 0, "v100-16gb" },
    { "Tesla V100-SXM2-32GB", 31.7, "v100-32gb" },
    { "Tesla V100-SXM3-32GB", 0, "v100-32gb" },
    { "NVIDIA A10", 22, "a10" },
    { "NVIDIA A30", 0, "a30" },
    { "NVIDIA A40", 44.4, "a40" },
    { "NVIDIA RTX A6000", 0, "rtx-a6000" },
    { "NVIDIA L4", 0, "l4" },
    { "NVIDIA L40S", 44.4, "l40s" },
    { "NVIDIA A100-PCIE-40GB", 0, "a100-pcie-40gb" },
    { "A100-PCIE-40GB", 0, "a100-pcie-40gb" },
    { "NVIDIA A100 80GB PCIe", 0, "a100-pcie-80gb" },
    { "NVIDIA A100-SXM4-40GB", 39.4, "a100-sxm-40gb" },
    { "A100-SXM4-40GB", 0, "a100-sxm-40gb" },
    { "NVIDIA A100-SXM4-80GB", 79.2, "a100-sxm-80gb" },
    { "A100-SXM-80GB", 0, "a100-sxm-80gb" },
    { "NVIDIA H100 80GB HBM3", 79.1, "h100-sxm" },
    { "NVIDIA H100 PCIe", 79.1, "h100-pcie" },
    { "NVIDIA H100 NVL", 93.1, "h100-nvl" },
    { "NVIDIA H200", 139.8, "h200-sxm" },
    { "NVIDIA H20", 95, "h20" },
    { "NVIDIA GH200 480GB", 94.5, "gh200-96gb" },
    { "NVIDIA GH200 120GB", 0, "gh200-96gb" },
    { "NVIDIA B100", 0, "b100" },
    { "NVIDIA B200", 178.4, "b200-sxm" },
    { "NVIDIA GB200", 184, "gb200" },
    { "NVIDIA B300 SXM6 AC", 268, "b300-sxm" },
    { "NVIDIA GB300", 277, "gb300" },
    { "AMD Instinct MI250X/MI250", 64, "mi250x-gcd" },
    { "AMD Instinct MI300X", 192, "mi300x" },
    { "AMD Instinct MI300X OAM", 0, "mi300x" },
    { "AMD Instinct MI325X", 256, "mi325x" },
    { "NVIDIA GeForce RTX 4090", 23.6, "rtx-4090" },
    { "GeForce RTX 4090", 0, "rtx-4090" },
    { "NVIDIA GeForce RTX 5090", 0, "rtx-5090" },
    { "NVIDIA RTX PRO 6000 Blackwell Server Edition", 95, "rtx-pro-6000" },
    /* relatives that are other parts */
    { "NVIDIA T4G", 0, NULL },
    { "NVIDIA A10G", 22, NULL },
    { "Tesla V100-PCIE-32GB", 0, NULL },
    { "Tesla V100S-PCIE-32GB", 0, NULL },
    { "NVIDIA A100-SXM-64GB", 0, NULL },
    { "NVIDIA A100 80GB PCIe LC", 0, NULL },
    { "NVIDIA A800-SXM4-80GB", 0, NULL },
    { "NVIDIA H800", 0, NULL },
    { "NVIDIA H100", 0, NULL },
    { "NVIDIA H100 96GB HBM3", 0, NULL },
    { "NVIDIA H200 NVL", 0, NULL },
    { "NVIDIA H20-3e", 0, NULL },
    { "NVIDIA H20", 139, NULL },
    { "NVIDIA GH200 144G HBM3e", 0, NULL },
    { "NVIDIA L40", 0, NULL },
    { "NVIDIA GeForce RTX 4090 D", 0, NULL },
    { "NVIDIA GeForce RTX 4090 Laptop GPU", 0, NULL },
    { "NVIDIA GeForce RTX 5090 D", 0, NULL },
    { "NVIDIA RTX 6000 Ada Generation", 0, NULL },
    { "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 0, NULL },
    { "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 0, NULL },
    { "NVIDIA A100-SXM4-80GB MIG 3g.40gb", 0, NULL },
    { "GRID A100-10C", 0, NULL },
    { "Tesla V100-SXM2", 0, NULL }, /* of 16 or of 32 GB */
    { "", 0, NULL },
    { "NVIDIA", 0, NULL },
};

TEST(topo_knows_every_gpu_of_the_catalog)
{
    struct arena a;
    struct err e = { 0 };
    struct hw_gpu *gpu;
    struct hw_system *sys;
    int n_gpu, n_sys;
    const char *got;
    arena_init(&a);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK_OK(topo_match(names[i].reported, names[i].gib * (1 << 30), &a, &got, &e), &e);
        test_check_text(or_none(got), or_none(names[i].catalog), __FILE__, __LINE__,
                        names[i].reported);
    }
    CHECK_OK(hw_list(&a, &gpu, &n_gpu, &sys, &n_sys, &e), &e);
    for (int i = 0; i < n_gpu; i++) {
        bool reached = false;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            reached |= names[k].catalog && strcmp(names[k].catalog, gpu[i].name) == 0;
        test_check(reached, __FILE__, __LINE__, gpu[i].name);
        /* the catalog's own figure of memory picks the same entry, and so does its own name */
        CHECK_OK(topo_match(gpu[i].name, gpu[i].mem_bytes, &a, &got, &e), &e);
        CHECK_TEXT(got, gpu[i].name);
    }
    arena_release(&a);
}

TEST(topo_link_rates)
{
    CHECK_NEAR(topo_pcie_rate(3, 16), 15.753846e9, 1e-6); /* as hwloc prints them */
    CHECK_NEAR(topo_pcie_rate(4, 16), 31.507692e9, 1e-6);
    CHECK_NEAR(topo_pcie_rate(5, 16), 63.015385e9, 1e-6);
    CHECK_NEAR(topo_pcie_rate(6, 16), 121e9, 1e-6);
    CHECK_NEAR(topo_pcie_rate(1, 1), 0.25e9, 1e-12);
    CHECK_NEAR(topo_pcie_rate(7, 16), 0, 0);
    CHECK_INT(topo_pcie_gen(16), 4);
    CHECK_INT(topo_pcie_gen(12), 0);
    CHECK_NEAR(12 * topo_nvlink_rate(8, 0), 300e9,
               1e-12); /* totals of the datasheets, one direction */
    CHECK_NEAR(18 * topo_nvlink_rate(9, 0), 450e9, 1e-12);
    CHECK_NEAR(18 * topo_nvlink_rate(10, 0), 900e9, 1e-12);
    CHECK_NEAR(6 * topo_nvlink_rate(7, 0), 150e9, 1e-12);
    CHECK_NEAR(4 * topo_nvlink_rate(8, 6), 56.25e9, 1e-12);
    CHECK_NEAR(4 * topo_nvlink_rate(6, 0), 80e9, 1e-12);
}

/* ---- as hardware of the model */

static void to_hw(const char *text, const char *gpu, struct arena *a, struct hw *h)
{
    struct err e = { 0 };
    struct topo t;
    CHECK_OK(read_text(text, a, &t, &e), &e);
    CHECK_OK(topo_to_hw(&t, gpu, a, h, &e), &e);
}

TEST(topo_becomes_hardware)
{
    struct arena a;
    struct hw h, dgx;
    struct err e = { 0 };
    arena_init(&a);
    /* the catalog's own machine, described: its measured rates come back */
    const char *path = test_data("hardware_topology_xml/synthetic-dgx-h100.hwloc.xml");
    struct topo t;
    CHECK_OK(topo_read(path, &a, &t, &e), &e);
    CHECK_OK(topo_to_hw(&t, NULL, &a, &h, &e), &e);
    CHECK_OK(hw_load("dgx-h100", NULL, 1, &a, &dgx, &e), &e);
    CHECK_INT(h.n_node, 1);
    CHECK_INT(h.sys.n_gpu, 8);
    CHECK_INT(h.sys.fabric, HW_SWITCHED);
    CHECK(h.sys.nvls);
    CHECK_NEAR(h.sys.peer_bytes_per_s, dgx.sys.peer_bytes_per_s, 1e-9);
    CHECK_NEAR(h.sys.busbw_bytes_per_s, dgx.sys.busbw_bytes_per_s, 1e-9);
    CHECK_NEAR(h.gpu.mem_bytes, dgx.gpu.mem_bytes, 1e-12);
    CHECK_INT(h.sys.host_cores, 112);
    arena_release(&a);
}

TEST(topo_becomes_hardware_of_each_fabric)
{
    struct arena a;
    struct hw h;
    arena_init(&a);
    to_hw("\tGPU0\tGPU1\tGPU2\tGPU3\nGPU0\tX\tNV12\tSYS\tSYS\nGPU1\tNV12\tX\tSYS\tSYS\n"
          "GPU2\tSYS\tSYS\tX\tNV12\nGPU3\tSYS\tSYS\tNV12\tX\n",
          "a100-pcie-80gb", &a, &h);
    CHECK_INT(h.sys.fabric, HW_PAIRS);
    CHECK_NEAR(h.sys.peer_bytes_per_s, 270e9, 1e-9); /* of the catalog's bridged pair */
    to_hw("\tGPU0\tGPU1\nGPU0\tX\tPIX\nGPU1\tPIX\tX\n", "l40s", &a, &h);
    CHECK_INT(h.sys.fabric, HW_PCIE);
    CHECK(h.sys.peer_bytes_per_s > 20e9 && h.sys.peer_bytes_per_s < h.gpu.pcie_bytes_per_s);
    to_hw("\tGPU0\tGPU1\nGPU0\tX\tPIX\nGPU1\tPIX\tX\n", "rtx-4090", &a, &h);
    CHECK_INT(h.sys.fabric, HW_HOST);
    to_hw("\tGPU0\tGPU1\tGPU2\nGPU0\tX\tNV4\tNV4\nGPU1\tNV4\tX\tNV4\nGPU2\tNV4\tNV4\tX\n",
          "a100-sxm-40gb", &a, &h);
    CHECK_INT(h.sys.fabric, HW_MESH);
    CHECK(h.sys.peer_bytes_per_s > 50e9 && h.sys.peer_bytes_per_s <= 100e9);
    to_hw("\tGPU0\tNIC0\nGPU0\tX\tPIX\nNIC0\tPIX\tX\n", "t4", &a, &h);
    CHECK_INT(h.sys.n_gpu, 1);
    CHECK_INT(h.sys.n_nic, 1);
    CHECK_NEAR(h.sys.inter_bytes_per_s, 0, 0);
    CHECK_HAS(h.sys.notes, "rate of the NICs is not said");
    to_hw(nccl_text, NULL, &a, &h);
    CHECK_TEXT(h.gpu.name, "a100-sxm-80gb");
    CHECK_NEAR(h.sys.nic_bytes_per_s, 50e9, 1e-12);
    CHECK_NEAR(h.sys.inter_bytes_per_s, 0.88 * 50e9 / 3, 1e-9);
    arena_release(&a);
}

TEST(topo_says_why_it_is_no_hardware)
{
    struct arena a;
    struct err e = { 0 };
    struct hw h;
    struct topo t;
    arena_init(&a);
    CHECK_OK(read_text(smi_text, &a, &t, &e), &e);
    CHECK_INT(topo_to_hw(&t, NULL, &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "GPU 0 is not named there: name the GPU of the catalog that it is");
    e = (struct err){ 0 };
    CHECK_INT(topo_to_hw(&t, "h1oo-sxm", &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "did you mean 'h100-sxm'");
    e = (struct err){ 0 };
    CHECK_INT(topo_to_hw(&t, "dgx-h100", &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "is a system");
    CHECK_OK(read_text("<system><cpu numaid=\"0\"><pci busid=\"0000:00:16.0\"/></cpu></system>", &a,
                       &t, &e),
             &e);
    CHECK_INT(topo_to_hw(&t, "a10", &a, &h, &e), ST_USAGE);
    CHECK_HAS(e.text, "1 PCI devices have no class");
    arena_release(&a);
}
