from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("Bye.")


urlpatterns = [path("livefeed/", include("livefeed.urls")), path("leave/", leave)]
