/* The floor: an HTTP server in C that does nothing but hand each event to every stream, one send() per stream and event.
 *
 * GET opens a stream, POST publishes its body. What a stream does not take at once is an error: readers here keep up.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536

static int streams[MOST], count;

static void die(const char *why) {
    perror(why);
    exit(1);
}

static void put(int fd, const char *text, size_t size) {
    while (size) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) continue;
        if (sent < 0) return;
        text += sent;
        size -= sent;
    }
}

static void publish(const char *body, int size) {
    char event[8192], chunk[9000];
    int length = snprintf(event, sizeof event, "data: %.*s\n\n", size, body);
    length = snprintf(chunk, sizeof chunk, "%x\r\n%.*s\r\n", length, length, event);
    for (int i = 0; i < count; i++) put(streams[i], chunk, length);
}

static void answer(int fd) {
    static const char opening[] =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
        "Transfer-Encoding: chunked\r\n\r\n7\r\n: hello\r\n2\r\n\n\n\r\n";
    static const char done[] = "HTTP/1.1 204 No Content\r\n\r\n";
    char request[8192];
    ssize_t size = recv(fd, request, sizeof request - 1, 0);
    if (size <= 0) {
        if (size < 0 && errno == EAGAIN) return;
        for (int i = 0; i < count; i++)
            if (streams[i] == fd) streams[i] = streams[--count];
        close(fd);
        return;
    }
    request[size] = 0;
    char *body = strstr(request, "\r\n\r\n");
    if (!body) die("a request in pieces");
    if (request[0] == 'G') {
        streams[count++] = fd;
        put(fd, opening, sizeof opening - 1);
    } else {
        publish(body + 4, size - (body + 4 - request));
        put(fd, done, sizeof done - 1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), poll = epoll_create1(0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_ANY);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) die("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        struct epoll_event events[512];
        int found = epoll_wait(poll, events, 512, -1);
        for (int i = 0; i < found; i++) {
            if (events[i].data.fd != listener) {
                answer(events[i].data.fd);
                continue;
            }
            int fd;
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
            }
        }
    }
}
