/* Reads many event streams at once and writes down when each event arrived, in one thread, with epoll.
 *
 * Told by lines on stdin, answers each with a line on stdout:
 *
 *   open N AT_ONCE   open N more streams, AT_ONCE requests under way; when each has its first bytes of a body:
 *                    "opened N SECONDS BYTES"
 *   expect M S       from now on count events 1 to M; "expecting M"
 *   post M RATE      post events 1 to M at RATE per second (0: as fast as the server answers); "posting M"
 *   wait S           until all events are here, or nothing came for S seconds: "arrived A LOST DOUBLED DISORDERED CALLS"
 *   save FILE        the moments of arrival, nanoseconds of CLOCK_MONOTONIC, event by event and reader by reader, and
 *                    before those of each event the one at which it was due to be posted: "saved FILE"
 *   close            all streams; "closed N"
 *
 * An event is told by the text "n": and its number, wherever in the stream.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (256 * 1024)
#define CARRY 32
#define POSTERS 32
#define ADDRESSES 250
#define LOOK_EVERY 200 /* microseconds */
#define NAME "\"n\":"

enum kind { READER, POSTER };

struct connection {
    enum kind kind;
    int fd, index;
    int connecting, in_body, opened, busy, matched;
    uint64_t latest;
    int carried;
    char carry[CARRY];
};

static char *request_format, *post_path;
static int port, event_bytes = 200;
static int epoll_fd;
static struct connection *readers;
static int capacity, count, under_way, at_once, wanted, opened;
static struct connection posters[POSTERS];
static int posters_open;
static uint64_t expected, arrived, doubled, disordered, calls, bytes;
static uint64_t *moments; /* (1 + count) per event: due, then one per reader */
static uint64_t to_post, posted;
static double rate;
static uint64_t post_began, last_arrival;
static char buffer[BUFFER + CARRY];

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void die(const char *why) {
    fprintf(stderr, "load: %s: %s\n", why, strerror(errno));
    exit(1);
}

static void watch(struct connection *c, uint32_t events, int op) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, op, c->fd, &e)) die("epoll_ctl");
}

static void start(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* Readers come from 127.0.1.1, 127.0.2.1 and so on, as real ones come from many addresses. */
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (c->kind == READER ? 256 * (1 + c->index % ADDRESSES) : 0));
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) die("bind");
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    c->connecting = 1;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void put(int fd, const char *text, size_t size) {
    while (size) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (sent < 0) die("send");
        text += sent;
        size -= sent;
    }
}

/* The request, with every %d in it replaced by the reader's number, and %m by the last digit of that. */
static void ask(struct connection *c) {
    char request[4096];
    size_t size = 0;
    for (const char *p = request_format; *p && size < sizeof request - 16; p++) {
        if (p[0] == '%' && (p[1] == 'd' || p[1] == 'm')) {
            size += sprintf(request + size, "%d", p[1] == 'd' ? c->index : c->index % 10);
            p++;
        } else {
            request[size++] = *p;
        }
    }
    put(c->fd, request, size);
}

static void connected(struct connection *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        errno = error;
        die("connect");
    }
    c->connecting = 0;
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    if (c->kind == READER) ask(c);
}

static void open_more(void) {
    while (under_way < at_once && count < wanted) {
        struct connection *c = &readers[count];
        memset(c, 0, sizeof *c);
        c->kind = READER;
        c->index = count++;
        under_way++;
        start(c);
    }
}

static void note(struct connection *c, uint64_t n, uint64_t at) {
    if (!n || n > expected) return;
    uint64_t *moment = &moments[(n - 1) * (1 + (uint64_t)wanted) + 1 + c->index];
    if (*moment) {
        doubled++;
        return;
    }
    *moment = at;
    arrived++;
    last_arrival = at;
    if (n < c->latest) disordered++;
    c->latest = n;
}

/* Find the events in what came; what may be the beginning of one is carried over to the next read. */
static void scan(struct connection *c, char *text, size_t size, uint64_t at) {
    char *end = text + size, *p = text;
    while ((p = memmem(p, end - p, NAME, sizeof NAME - 1))) {
        char *digit = p + sizeof NAME - 1;
        uint64_t n = 0;
        while (digit < end && *digit == ' ') digit++;
        while (digit < end && *digit >= '0' && *digit <= '9') n = n * 10 + (*digit++ - '0');
        if (digit == end && end - p < CARRY) {
            c->carried = end - p;
            memcpy(c->carry, p, c->carried);
            return;
        }
        note(c, n, at);
        p = digit;
    }
    c->carried = size < sizeof NAME - 2 ? size : sizeof NAME - 2;
    memcpy(c->carry, end - c->carried, c->carried);
}

static void begun(struct connection *c) {
    c->opened = 1;
    opened++;
    under_way--;
    open_more();
}

/* The body begins behind an empty line; a stream is open when the first byte of it is here. */
static void look_for_body(struct connection *c, const char *text, size_t size) {
    static const char empty_line[] = "\r\n\r\n";
    if (size >= 12 && !c->matched && memcmp(text, "HTTP/1.1 200", 12)) {
        fprintf(stderr, "load: refused: %.*s\n", (int)(size < 400 ? size : 400), text);
        exit(1);
    }
    for (size_t i = 0; i < size; i++) {
        if (c->in_body) {
            begun(c);
            return;
        }
        c->matched = text[i] == empty_line[c->matched & 3] ? c->matched + 1 : text[i] == '\r';
        if (c->matched == 4) c->in_body = 1;
    }
}

static void readable(struct connection *c) {
    size_t before = c->carried;
    memcpy(buffer, c->carry, before);
    ssize_t size = recv(c->fd, buffer + before, BUFFER, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        if (c->kind == READER) {
            fprintf(stderr, "load: the server closed stream %d\n", c->index);
            exit(1);
        }
        if (c->busy) die("the server closed a connection that posts");
        close(c->fd); /* it was idle for long */
        start(c);
        return;
    }
    calls++;
    bytes += size;
    if (c->kind == POSTER) {
        c->busy = 0;
        return;
    }
    if (!c->opened) look_for_body(c, buffer + before, size);
    c->carried = 0;
    if (expected) scan(c, buffer, before + size, now());
}

static void post_one(struct connection *c, uint64_t n, uint64_t due) {
    static char pad[65536];
    char head[512], body[512];
    if (!pad[0]) memset(pad, 'x', sizeof pad);
    int left = event_bytes - sprintf(body, "{\"n\":%llu,\"pad\":\"\"}", (unsigned long long)n);
    if (left < 0) left = 0;
    int size = sprintf(body, "{\"n\":%llu,\"pad\":\"%.*s\"}", (unsigned long long)n, left > 400 ? 400 : left, pad);
    int length = sprintf(head,
                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                         "Content-Length: %d\r\n\r\n%.*s",
                         post_path, size, size, body);
    put(c->fd, head, length);
    c->busy = 1;
    moments[(n - 1) * (1 + (uint64_t)wanted)] = due;
}

/* Post what is due; return the milliseconds until the next one is. */
static int post_due(void) {
    while (posted < to_post) {
        uint64_t at = now(), due = rate ? post_began + (uint64_t)(posted * 1e9 / rate) : at;
        if (due > at) return (due - at) / 1000000;
        struct connection *free = NULL;
        for (int i = 0; i < posters_open && !free; i++)
            if (!posters[i].busy && !posters[i].connecting) free = &posters[i];
        if (!free) return 1;
        post_one(free, ++posted, due);
    }
    return 50;
}

/* Look now and then instead of waiting to be woken: to wake another core costs the one who sends some microseconds, and
 * real readers are on other machines. */
static void turn(int timeout) {
    static struct epoll_event events[1024];
    int found = epoll_wait(epoll_fd, events, 1024, 0);
    if (found < 0 && errno != EINTR) die("epoll_wait");
    if (!found && timeout) usleep(LOOK_EVERY);
    for (int i = 0; i < found; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->connecting)
            connected(c);
        else
            readable(c);
    }
}

static void do_open(int more, int together) {
    uint64_t began = now(), before = bytes;
    capacity = wanted = count + more;
    at_once = together;
    opened = 0;
    struct connection *moved = realloc(readers, capacity * sizeof *readers);
    if (readers && moved != readers && count) { /* epoll holds the old addresses */
        readers = moved;
        for (int i = 0; i < count; i++) watch(&readers[i], EPOLLIN, EPOLL_CTL_MOD);
    }
    readers = moved;
    open_more();
    while (opened < more) turn(100);
    printf("opened %d %.6f %llu\n", more, (now() - began) / 1e9, (unsigned long long)(bytes - before));
}

static void do_expect(uint64_t events) {
    expected = events;
    arrived = doubled = disordered = calls = posted = to_post = 0;
    free(moments);
    moments = calloc(events * (1 + (uint64_t)wanted), sizeof *moments);
    if (events && !moments) die("calloc");
    for (int i = 0; i < count; i++) readers[i].latest = readers[i].carried = 0;
    last_arrival = now();
    printf("expecting %llu\n", (unsigned long long)events);
}

static void do_post(uint64_t events, double per_second) {
    for (int i = posters_open; i < POSTERS; i++) {
        posters[i].kind = POSTER;
        start(&posters[i]);
        posters_open++;
    }
    for (int i = 0; i < posters_open; i++)
        while (posters[i].connecting) turn(10);
    to_post = events;
    posted = 0;
    rate = per_second;
    post_began = last_arrival = now();
    printf("posting %llu\n", (unsigned long long)events);
}

static void do_wait(double silence) {
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    uint64_t all = expected * (uint64_t)count, began = now();
    while (arrived < all && (posted < to_post || now() - last_arrival < silence * 1e9)) turn(post_due());
    getrusage(RUSAGE_SELF, &after);
    double busy = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) + (after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                  (after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1e6;
    printf("arrived %llu %llu %llu %llu %llu %.6f %.6f\n", (unsigned long long)arrived, (unsigned long long)(all - arrived),
           (unsigned long long)doubled, (unsigned long long)disordered, (unsigned long long)calls, busy,
           (now() - began) / 1e9);
}

static void do_save(const char *path) {
    FILE *file = fopen(path, "wb");
    if (!file) die(path);
    size_t cells = expected * (1 + (size_t)wanted);
    if (fwrite(moments, sizeof *moments, cells, file) != cells || fclose(file)) die(path);
    printf("saved %s\n", path);
}

static void do_close(void) {
    for (int i = 0; i < count; i++) close(readers[i].fd);
    printf("closed %d\n", count);
    count = wanted = under_way = 0;
    expected = 0;
}

static void obey(char *line) {
    char path[1024];
    unsigned long long events;
    int more, together;
    double number;
    if (sscanf(line, "open %d %d", &more, &together) == 2) do_open(more, together);
    else if (sscanf(line, "expect %llu", &events) == 1) do_expect(events);
    else if (sscanf(line, "post %llu %lf", &events, &number) == 2) do_post(events, number);
    else if (sscanf(line, "wait %lf", &number) == 1) do_wait(number);
    else if (sscanf(line, "save %1023s", path) == 1) do_save(path);
    else if (!strncmp(line, "close", 5)) do_close();
    else {
        fprintf(stderr, "load: what is this? %s", line);
        exit(1);
    }
    fflush(stdout);
}

/* load PORT EVENT_BYTES POST_PATH REQUEST */
int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "load PORT EVENT_BYTES POST_PATH REQUEST, and commands on stdin\n");
        return 2;
    }
    port = atoi(argv[1]);
    event_bytes = atoi(argv[2]);
    post_path = argv[3];
    request_format = argv[4];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    epoll_fd = epoll_create1(0);
    char line[2048];
    fcntl(0, F_SETFL, O_NONBLOCK);
    size_t held = 0;
    for (;;) { /* streams are read between the commands too */
        ssize_t size = read(0, line + held, sizeof line - 1 - held);
        if (!size) return 0;
        if (size < 0) {
            turn(5);
            continue;
        }
        held += size;
        line[held] = 0;
        for (char *end; (end = strchr(line, '\n'));) {
            char command[2048];
            memcpy(command, line, end - line + 1);
            command[end - line + 1] = 0;
            held -= end - line + 1;
            memmove(line, end + 1, held + 1);
            obey(command);
        }
    }
}
